"""Branches beside the frozen feed-forward branches: what their methods share."""

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from urushi.adapters.base import Adapter, OutputChange, key_of
from urushi.adapters.layers import choose
from urushi.adapters.method import needed
from urushi.backbones.network import RestorationNetwork
from urushi.backbones.sites import FeedForwardSite
from urushi.settings import Settings

__all__ = ["BranchSettings", "ParallelBranches"]


class BranchSettings(Settings):
    """Settings of all methods that have branches.

    Attributes:
        sites: patterns of the names of the modules to whose output a branch is added; all by
            default. Without branches in a backbone's first blocks a step of training ends early.
    """

    sites: list[str] = ["*"]


class ParallelBranches(Adapter):
    """A branch beside every feed-forward branch.

    It reads what the frozen one reads, the output of the site's `norm`, and is added to what that
    one gives, before the scale and the residual: `out = x + scale * (frozen(norm(x)) +
    branch(norm(x)))`.

    Its parameters: `branches.SITE`, where a site is named by its `output`.

    Raises:
        AdapterError: the backbone has no feed-forward branches, or none is chosen.
    """

    def __init__(self, backbone: RestorationNetwork, config: BranchSettings) -> None:
        super().__init__(config)
        sites = needed(backbone.sites.feed_forward, "feed-forward sites", self.method)
        names = set(choose([site.output for site in sites], config.sites, "sites"))
        self._sites: Sequence[FeedForwardSite] = [s for s in sites if s.output in names]
        self.branches = nn.ModuleDict(
            {key_of(site.output): self.make_branch(site) for site in self._sites}
        )

    @abstractmethod
    def make_branch(self, site: FeedForwardSite) -> nn.Module:
        """A branch for a site, which gives zero at first."""

    def run_branch(self, branch: nn.Module, x: Tensor, site: FeedForwardSite) -> Tensor:
        """The branch's result for the output `x` of the site's norm, in the same layout."""
        return branch(x)

    def output_changes(self) -> list[OutputChange]:
        changes = []
        for site in self._sites:
            passing = _Passing(self, self.branches[key_of(site.output)], site)
            changes.append(OutputChange(site.norm, passing.read))
            changes.append(OutputChange(site.output, passing.add))
        return changes


class _Passing:
    """Carries the input of one branch from where it is read to where the result is added."""

    def __init__(self, adapter: ParallelBranches, branch: nn.Module, site: FeedForwardSite) -> None:
        self._adapter, self._branch, self._site = adapter, branch, site
        self._input: Tensor | None = None

    def read(self, output: Tensor) -> None:
        self._input = output

    def add(self, _output: Tensor) -> Tensor:
        # Let go at once: it would be kept until the next pass.
        x, self._input = self._input, None
        assert x is not None, f"{self._site.output} ran before {self._site.norm}"
        return self._adapter.run_branch(self._branch, x, self._site)
