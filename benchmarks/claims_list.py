"""Which claims of the papers are tried, and the rows of comparisons that each is judged by."""

from dataclasses import dataclass

__all__ = ["BEST", "BEST_RATE", "CLAIMS", "Claim", "Contrast"]

BEST = "best single expert"
BEST_RATE = "best rate"


@dataclass(frozen=True)
class Contrast:
    """Two rows that a claim sets beside one another.

    Attributes:
        better: what the claim says is better: a label, or `BASE: LABEL`.
        than: than this.
        on: tasks whose mean is compared; empty for all that the mean of the comparison is of.
        pairs: at that many; None at the most there are.
        less: tasks whose own lead is taken off: whether the lead is greater than there.
    """

    better: str
    than: str
    on: tuple[str, ...] = ()
    pairs: int | None = None
    less: tuple[str, ...] = ()


@dataclass(frozen=True)
class Claim:
    """A claim of a paper, and the rows it is judged by.

    Attributes:
        name: of the plot.
        title: heading.
        says: what the paper claims, and how it is tried here.
        comparison: of `urushi compare`, without `claim-`.
        contrasts: what is set beside what.
        decisive: so many of them, the first, are the claim itself: all have to hold.
        quoted: so many, the first, are told in the verdict; 0 for those that decide.
        remark: what else the rows tell, and a reader would not see.
        labels: rows that are shown; empty for all.
        curve: the plot is one by the number of pairs.
        parts: tasks that are shown; empty for those of the mean.
    """

    name: str
    title: str
    says: str
    comparison: str
    contrasts: tuple[Contrast, ...]
    decisive: int = 1
    quoted: int = 0
    labels: tuple[str, ...] = ()
    curve: bool = False
    parts: tuple[str, ...] = ()
    remark: str = ""


SINGLE = ("low light", "low resolution")
MIXED = ("low resolution and noise", "low resolution and JPEG")
COMPOSITES = ("low light and rain", "haze and snow")
MOST = ("low light", "haze", "motion blur")
"""Tasks of more than 64 pairs."""


def _by_pairs(*rows: tuple[str, str]) -> tuple[Contrast, ...]:
    """Rows beside one another at every number of pairs, those that all tasks have first."""
    few = [Contrast(one, other, pairs=n) for one, other in rows for n in (16, 64)]
    return (*few, *(Contrast(one, other, MOST, 128) for one, other in rows))


GUIDANCE = (
    Claim(
        "guidance",
        "Guidance helps (LoRA-IR)",
        "A base whose stages are gated by the degradation vector of a router restores several "
        "degradations better than the same base without gates. The control: the same gates, given "
        "a vector of zeros, which have all the parameters and none of the information.",
        "experts",
        (
            Contrast("guided base", "full"),
            Contrast("guided base", "guided base, constant"),
            Contrast("gates", "gates, constant"),
        ),
        decisive=2,
        labels=(
            "frozen",
            "gates",
            "gates, constant",
            "full",
            "guided base",
            "guided base, constant",
        ),
    ),
    Claim(
        "routed-experts",
        "Routed experts help (LoRA-IR)",
        "Low-rank experts, one of which a router gives to each picture, do better than the base "
        "trained on (a), one shared LoRA of as many parameters (b), random routing (d) and the "
        "router that sees the whole picture alone (f); the right expert by label (c) is what "
        "routing could reach, and k = 2 and k = 4 mix several (e). The router reads patches in "
        "training and whole pictures in measuring.",
        "experts",
        (
            Contrast("experts k=1", "one shared LoRA"),
            Contrast("experts k=1", "full"),
            Contrast("experts k=1", "random"),
            Contrast("oracle", "experts k=1"),
            Contrast("k=2", "experts k=1"),
            Contrast("k=4", "experts k=1"),
            Contrast("experts k=1", "whole view"),
        ),
        decisive=3,
        labels=(
            "frozen",
            "full",
            "one shared LoRA",
            "experts k=1",
            "oracle",
            "random",
            "k=2",
            "k=4",
            "whole view",
        ),
        remark="With k = 1 a seed's experts either restore low light (16 dB) and spoil noise "
        "(29 dB), or keep noise (38 dB) and leave low light dark (8 dB): of 32 held-out pictures "
        "with noise the routers take 4, 2 and 6 for low light. Likely, for it was not tried: the "
        "loss is PSNR, in which the nearly clean pictures weigh most, so the expert that gets a "
        "few of them learns to leave all alone. Experts by label have neither fault.",
    ),
)

BUDGETS = (
    Claim(
        "budget",
        "A budget by contribution beats an even one (CoLoRA)",
        "The same number of parameters, given to layers by their measured contribution, does "
        "better than ranks that are the same everywhere, and than the reverse, most to the layers "
        "that contribute least. The contributions were measured on training pairs of rain and "
        "noise; low light and haze are tasks that they do not know.",
        "ranks",
        (
            Contrast("by contribution", "even"),
            Contrast("by contribution", "inverted"),
            Contrast("by contribution", "LoRA 4"),
        ),
        decisive=2,
        labels=("frozen", "by contribution", "even", "inverted", "LoRA 4", "full"),
    ),
    Claim(
        "ranks",
        "Small ranks do better than large ones (ABAIR)",
        "LoRA of rank 4 does better than LoRA of rank 16, which has four times its parameters.",
        "ranks",
        (Contrast("LoRA 4", "LoRA 16"), Contrast("LoRA 1", "LoRA 16")),
        labels=("frozen", "LoRA 1", "LoRA 2", "LoRA 4", "LoRA 8", "LoRA 16", "full"),
    ),
)

BRANCHES = (
    Claim(
        "adaptir-mixed",
        "AdaptIR beats homogeneous adapters, most on mixed degradations (AdaptIR)",
        "A local, a frequency and a channel branch together do better than a homogeneous adapter "
        "of as many parameters, and the lead is greater on mixed degradations than on single ones.",
        "adaptir",
        (
            Contrast("AdaptIR", "AdaptFormer", MIXED),
            Contrast("AdaptIR", "LoRA", MIXED),
            Contrast("AdaptIR", "AdaptFormer", MIXED, less=SINGLE),
            Contrast("AdaptIR", "LoRA", MIXED, less=SINGLE),
            Contrast("AdaptIR", "AdaptFormer", SINGLE),
            Contrast("AdaptIR", "LoRA", SINGLE),
        ),
        decisive=4,
        labels=("frozen", "AdaptIR", "AdaptFormer", "LoRA", "full"),
        remark="The lead is greater on mixes only because AdaptIR is far behind on low light, "
        "where it learns slowest at this rate (at three times the rate it has 17.2 dB there, see "
        "the control). Beside low resolution alone, which the mixes contain, the lead on them is "
        "0.07 ± 0.01 dB smaller over AdaptFormer and 0.10 ± 0.04 dB smaller over LoRA. No row "
        "here speaks for the claim.",
    ),
    Claim(
        "adaptir-branches",
        "Each branch of AdaptIR is needed (AdaptIR)",
        "Without any one of its branches AdaptIR does worse, at as many parameters.",
        "adaptir",
        (
            Contrast("AdaptIR", "without local"),
            Contrast("AdaptIR", "without frequency"),
            Contrast("AdaptIR", "without channel"),
        ),
        decisive=3,
        labels=("frozen", "AdaptIR", "without local", "without frequency", "without channel"),
    ),
    Claim(
        "rates",
        "AdaptIR and ranks, each at its best learning rate (control)",
        "What is said of AdaptIR and of ranks would be worth little if it were a matter of the "
        "learning rate. Here each has three, a factor of three apart, around the one it has above, "
        "and is told at the best of them, which is chosen for each task and seed knowing the "
        "result.",
        "rates",
        (
            Contrast(
                f"AdaptIR, {BEST_RATE}", f"AdaptFormer, {BEST_RATE}", ("low resolution and noise",)
            ),
            Contrast(
                f"AdaptIR, {BEST_RATE}", f"LoRA 1, {BEST_RATE}", ("low resolution and noise",)
            ),
            Contrast(f"LoRA 4, {BEST_RATE}", f"LoRA 16, {BEST_RATE}", ("low light",)),
        ),
        decisive=3,
    ),
)

PRETRAINING = (
    Claim(
        "prod",
        "Random orders of degradations are the better pre-training (CoLoRA + PROD)",
        "Fine-tuned whole on few pairs, a base that was pre-trained with degradations in random "
        "order (PROD) does better than one of single degradations, of all of them in a fixed "
        "order, of DegAE's mixture, of masked inputs with degradations to be named, or of random "
        "weights. All had 600 steps on the same pictures, once each: the spread is that of the "
        "fine-tunings. Of the paper's curve 16, 64 and 128 pairs are run, not 32; rain and noise "
        "have no 128.",
        "prod",
        _by_pairs(
            ("PROD: full", "random: full"),
            ("PROD: full", "single: full"),
            ("PROD: full", "fixed: full"),
            ("PROD: full", "DegAE-like: full"),
            ("PROD: full", "masked: full"),
        ),
        decisive=10,
        curve=True,
    ),
    Claim(
        "tuning",
        "CoLoRA comes near full fine-tuning, and beats LoRA and the decoder alone (CoLoRA)",
        "After PROD, CoLoRA does better than LoRA of as many parameters and than training the "
        "decoder alone, and nearly as well as full fine-tuning, at 16 to 128 pairs. Of the paper's "
        "curve 16, 64 and 128 pairs are run, not 32; rain and noise have no 128. How near is near "
        "the paper does not say: its lead of full fine-tuning is 0.05 to 0.20 dB on NAFNet, as "
        "read off its figure.",
        "tuning",
        _by_pairs(("CoLoRA", "LoRA"), ("CoLoRA", "only decoder"), ("full", "CoLoRA")),
        decisive=4,
        quoted=6,
        curve=True,
    ),
    Claim(
        "rivals",
        "Newer low-rank methods do better than LoRA (DoRA, VoRA, MoR, VeRA)",
        "DoRA (directions and lengths apart), squares of low-rank maps as VoRA has them, ranks "
        "that are routed as MoR's, each with about as many parameters as LoRA, and VeRA with few, "
        "which is its point. Written from the papers' formulas "
        "([why](decisions/0048-rivals-by-what-is-published-and-metrics-by-packages.md)).",
        "rivals",
        tuple(Contrast(name, "LoRA") for name in ("DoRA", "VoRA", "MoR", "VeRA")),
        decisive=4,
    ),
)

MIXTURES = (
    Claim(
        "composition",
        "Budgeted, routed, heterogeneous experts do better than LoRA-IR's (ours)",
        "CoLoRA experts did best on low light and AdaptIR's on rain "
        "([experts](../benchmarks/results/experts-cpu/comparison.md), the shipped base, one seed). "
        "So composed are CoLoRA experts for what changes tones (low light, haze) and AdaptIR's for "
        "what lies over a picture (rain, snow), and set beside LoRA experts and one shared LoRA of "
        "as many parameters. What counts are haze and snow, which nothing was chosen by.",
        "composition",
        (
            Contrast("composed", "LoRA experts", ("haze", "snow")),
            Contrast("composed", "one shared LoRA", ("haze", "snow")),
            Contrast("composed", "LoRA experts"),
            Contrast("composed", "one shared LoRA"),
            Contrast("LoRA experts", "one shared LoRA"),
        ),
        decisive=2,
        labels=(
            "frozen",
            "one shared LoRA",
            "LoRA experts",
            "LoRA experts, k=2",
            "composed",
            "full",
        ),
    ),
    Claim(
        "soft-mixing",
        "Soft mixing beats the single best expert on composites (ABAIR)",
        "On pictures with two degradations both experts in equal parts, or as the router weighs "
        "them, do better than the best one of them, which is chosen knowing the result.",
        "composition",
        tuple(
            Contrast(f"{label}, {way}", f"{label}, {BEST}", COMPOSITES)
            for label, way in (
                ("LoRA experts", "both"),
                ("LoRA experts, k=2", "both"),
                ("LoRA experts, k=2", "routed"),
                ("composed", "both"),
            )
        ),
        parts=COMPOSITES,
    ),
)

CLAIMS = (*GUIDANCE, *BUDGETS, *BRANCHES, *PRETRAINING, *MIXTURES)
"""In the order of the page."""
