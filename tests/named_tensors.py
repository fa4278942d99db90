"""Copies of a network's tensors, as checkpoints hold them."""


def moved(net):
    return {name: tensor + 1 for name, tensor in net.items()}


def under(prefix, net):
    return {prefix + name: tensor for name, tensor in net.items()}
