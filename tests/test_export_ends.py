"""The ends of a NAFNet put together in an exported graph: the same function at every pixel."""

import numpy as np
import pytest
import torch

from urushi.backbones import nafnet
from urushi.convert.traced_forms import in_export_form

NETWORKS = {
    "bare": {"width": 6, "enc_blk_nums": [0, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 0]},
    "placeholders": {
        "width": 4, "enc_blk_nums": [0, 1, 1], "middle_blk_num": 1, "dec_blk_nums": [1, 1, 0],
        "placeholders": True,
    },
    "one level": {"width": 8, "enc_blk_nums": [0], "middle_blk_num": 2, "dec_blk_nums": [0]},
    "grey": {
        "width": 4, "enc_blk_nums": [0, 1], "middle_blk_num": 1, "dec_blk_nums": [0, 0],
        "img_channel": 1,
    },
    "blocks before": {"width": 4, "enc_blk_nums": [1, 1], "middle_blk_num": 1,
                      "dec_blk_nums": [1, 0]},
    "blocks behind": {"width": 4, "enc_blk_nums": [0, 1], "middle_blk_num": 1,
                      "dec_blk_nums": [1, 1]},
    "no levels": {"width": 4, "enc_blk_nums": [], "middle_blk_num": 2, "dec_blk_nums": []},
}  # fmt: skip


def network(name):
    torch.manual_seed(1)
    net = nafnet.NAFNet(**NETWORKS[name]).eval().requires_grad_(False)
    for parameter in net.parameters():
        parameter.uniform_(-0.4, 0.4)
    return net


@pytest.mark.parametrize("name", NETWORKS)
def test_the_form_is_the_network_up_to_rounding_at_every_pixel(name):
    net, same = network(name), in_export_form(network(name))
    m, channels = net.size_multiple, net.intro.in_channels
    for rows, columns in ((1, 1), (1, 3), (4, 1), (5, 4)):
        x = torch.rand(2, channels, rows * m, columns * m)
        expected = net(x)
        scale = float(expected.abs().max())
        assert float((same(x) - expected).abs().max()) < 2e-6 * max(scale, 1.0), (rows, columns)


def test_no_feature_map_of_the_pictures_own_size_is_made():
    net = in_export_form(network("bare"))
    sizes = []
    # What a convolution of the outermost level would give is never asked for.
    for name in ("intro", "ending", "downs.0", "ups.1"):
        net.get_submodule(name).register_forward_hook(
            lambda _, __, result: sizes.append(result.shape)
        )
    net(torch.rand(1, 3, 16, 16))
    assert not sizes


def test_the_picture_is_added_as_it_is():
    net = network("bare")
    for layer in (net.intro, net.ending):
        layer.weight.zero_()
        assert layer.bias is not None
        layer.bias.zero_()
    x = torch.rand(1, 3, 16, 24)
    np.testing.assert_array_equal(in_export_form(net)(x).numpy(), x.numpy())
