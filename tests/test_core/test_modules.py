import torch

from flexiact_core.cogvideox.model import (
    rotary_positions,
)
from flexiact_core.modules import add_lora, share_weights


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@torch.no_grad()
def run(transformer, num_latent_frames):
    config = transformer.config
    height, width = config.sample_height, config.sample_width
    return transformer(
        hidden_states=seeded(1, num_latent_frames, config.in_channels, height, width),
        encoder_hidden_states=seeded(1, config.max_text_seq_length, config.text_embed_dim),
        timestep=torch.tensor([500]),
        image_rotary_emb=rotary_positions(config, num_latent_frames, height, width),
        return_dict=False,
    )[0]


def test_a_twin_shares_every_weight_and_no_container(base):
    original = base.transformer
    twin = share_weights(original)
    assert all(ours is theirs for ours, theirs in zip(twin.parameters(), original.parameters(), strict=True))
    ours, theirs = dict(twin.named_modules()), dict(original.named_modules())
    assert ours.keys() == theirs.keys()
    for name, module in ours.items():
        assert (module is theirs[name]) == (not module._modules), name


def test_what_is_attached_to_a_twin_never_reaches_the_original(base):
    original = base.transformer
    before = run(original, 5)
    twin = share_weights(original)
    twin.transformer_blocks[0].ff = torch.nn.Identity()
    twin.transformer_blocks[1].register_forward_hook(lambda module, args, output: tuple(part * 0 for part in output))
    twin.norm_out.register_forward_pre_hook(lambda module, args: (args[0] + 1, *args[1:]))
    twin.enable_gradient_checkpointing()
    assert torch.equal(run(original, 5), before)
    assert not torch.equal(run(twin, 5), before)
    assert not any(getattr(module, "gradient_checkpointing", False) for module in original.modules())


def test_a_twin_computes_the_same_bit_for_bit(base):
    assert torch.equal(run(share_weights(base.transformer), 5), run(base.transformer, 5))


def test_new_lora_layers_change_nothing_and_ask_nothing_of_the_base(base):
    twin, state = share_weights(base.transformer), torch.get_rng_state()
    add_lora(twin, "new", ["attn1.to_q"], rank=2, alpha=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(run(twin, 5), run(base.transformer, 5))
    assert not any("lora" in name for name, _ in base.transformer.named_parameters())
    learned = [name for name, parameter in twin.named_parameters() if parameter.requires_grad]
    assert len(learned) == 2 * base.transformer.config.num_layers and all("to_q.lora_" in name for name in learned)


def test_lora_matrices_add_their_product_and_are_copied(base):
    twin = share_weights(base.transformer)
    down, up = (torch.randn(*shape, generator=torch.Generator().manual_seed(1)) for shape in ((2, 32), (32, 2)))
    layer = "transformer_blocks.0.attn1.to_q"
    names = {f"{layer}.lora_A.weight": down, f"{layer}.lora_B.weight": up}
    add_lora(twin, "given", [layer], rank=2, alpha=1, matrices=names)
    probe, changed = seeded(1, 3, 32), twin.transformer_blocks[0].attn1.to_q
    expected = base.transformer.transformer_blocks[0].attn1.to_q(probe) + probe @ down.T @ up.T / 2
    torch.testing.assert_close(changed(probe), expected)
    down.zero_()
    torch.testing.assert_close(changed(probe), expected)
