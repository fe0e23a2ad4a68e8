"The decoder against transformers' Llama and GPT-2; causality; packed rows; first weights by name; sizes by formula."

import math

import pytest
import torch
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn import functional as F
from transformers import AutoConfig, AutoModelForCausalLM

from llmbook.core import UserError
from llmbook.lesson import grade
from llmbook.model.generate import KVCache
from llmbook.model.hf_format import from_hf, hf_config, to_hf
from llmbook.model.norm import _norm
from llmbook.model.transformer import (
    MLP, SIZES, Block, Config, Decoder, RMSNorm, SwiGLU, Transformer, config_for, count_parameters, flops_per_token,
    init_weights, token_entropy, token_log_probs,
)

BASE = dict(vocab_size=97, block_size=64, n_layer=3, n_head=4, n_kv_head=4, n_embd=32, n_hidden=88)
CONFIGS = {
    'llama': {}, 'llama-gqa': dict(n_kv_head=2), 'llama-mqa-untied': dict(n_kv_head=1, tied=False),
    'llama-untied': dict(tied=False), 'llama-theta-eps': dict(theta=500_000.0, eps=1e-6, n_kv_head=2),
    'llama-wide': dict(n_embd=64, n_head=2, n_kv_head=2, n_layer=1, n_hidden=24),
    'gpt2': dict(arch='gpt2', n_hidden=128), 'gpt2-untied': dict(arch='gpt2', n_hidden=128, tied=False),
    'gpt2-gelu': dict(arch='gpt2', n_hidden=128, activation='gelu'),
    'llama-biased': dict(qkv_bias=True, o_bias=True, mlp_bias=True, head_dim=12, activation='gelu_tanh'),
    'llama3': dict(rope=dict(rope_type='llama3', factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
                             original_max_position_embeddings=16), n_kv_head=2, tied=False),
    'llama-linear': dict(rope=dict(rope_type='linear', factor=3.0)),
    'qwen2': dict(arch='qwen2', n_kv_head=2), 'qwen2-untied': dict(arch='qwen2', n_kv_head=2, tied=False, theta=1e6),
    'qwen3': dict(arch='qwen3', n_kv_head=2, head_dim=24), 'qwen3-yarn': dict(arch='qwen3', tied=False, rope=dict(
        rope_type='yarn', factor=4.0, original_max_position_embeddings=16)),
    'gpt2-narrow': dict(arch='gpt2', n_hidden=40, n_head=8, n_kv_head=8, eps=1e-6, n_layer=2),
}


def config(name): return Config(**BASE | CONFIGS[name])


def model_of(name, seed=0):
    "Random weights that nothing is equal by: gains and biases are not ones and zeros."
    model, g = Transformer(config(name)), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for key, p in sorted(model.named_parameters()):
            noise = torch.randn(p.shape, generator=g)
            p.copy_(noise * 0.1 + (1 if p.ndim == 1 and key.endswith('weight') else 0))
    return model


def peer_of(model):
    c = model.config
    drop = ('architectures', 'model_type', 'dtype', 'pad_token_id')  # a padding row has no gradient over there
    settings = AutoConfig.for_model(c.arch, **{k: v for k, v in hf_config(c).items() if k not in drop})
    peer = AutoModelForCausalLM.from_config(settings)
    left = peer.load_state_dict(to_hf(model.state_dict(), c), strict=False)
    assert not left.unexpected_keys and set(left.missing_keys) <= ({'lm_head.weight'} if c.tied else set())
    peer.tie_weights()
    return peer.train()


def ids_of(c, B=2, T=23, seed=0):
    return torch.randint(c.vocab_size, (B, T), generator=torch.Generator().manual_seed(seed))


def share(a, b): return ((a - b).abs().max() / b.abs().max().clamp(min=1e-3)).item()


def next_loss(logits, ids): return F.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


@pytest.mark.parametrize('name', CONFIGS)
def test_logits_and_gradients_equal_transformers(name):
    ours = model_of(name)
    peer, ids = peer_of(ours), ids_of(ours.config)
    mine, theirs = ours(ids), peer(ids).logits
    torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-5)
    for y in (mine, theirs): next_loss(y, ids).backward()
    grads = from_hf({n: p.grad for n, p in peer.named_parameters()}, ours.config)
    assert set(grads) >= {n for n, _ in ours.named_parameters()}
    for key, p in ours.named_parameters():
        torch.testing.assert_close(p.grad, grads[key], atol=1e-5, rtol=1e-5, msg=key)
        assert share(p.grad, grads[key]) < 1e-4, key


@pytest.mark.parametrize('name', ['llama-gqa', 'gpt2'])
def test_a_wrong_weight_would_be_seen(name):
    ours = model_of(name)
    peer, ids = peer_of(ours), ids_of(ours.config)
    for key, p in ours.named_parameters():
        if key.endswith('attention.k.bias'): continue  # the same for every key: softmax does not see it
        kept = p.data.clone()
        p.data += torch.linspace(-0.05, 0.05, p.numel()).view_as(p)
        with torch.no_grad(): assert (ours(ids) - peer(ids).logits).abs().max() > 1e-4, key
        p.data.copy_(kept)


@pytest.mark.parametrize('name', CONFIGS)
def test_no_logit_sees_a_later_token(name):
    model = model_of(name)
    ids = ids_of(model.config, T=9)
    with torch.no_grad():
        whole = model(ids)
        for t in range(9):
            other = ids.clone()
            other[:, t] = (other[:, t] + 1) % model.config.vocab_size
            moved = (model(other) - whole).abs().amax((0, 2))
            assert not t or moved[:t].max() == 0
            assert moved[t] > 1e-4


@pytest.mark.parametrize('name', CONFIGS)
def test_packed_documents_equal_the_same_alone(name):
    model, lengths = model_of(name), [4, 1, 9, 6]
    docs = [ids_of(model.config, 1, n, seed=n) for n in lengths]
    segments = torch.tensor([[i for i, n in enumerate(lengths) for _ in range(n)]])
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    row, alone = torch.cat(docs, 1), torch.cat([model(d) for d in docs], 1)
    packed = model(row, positions, segments)
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-5)
    assert (model(row) - alone).abs().max() > 1e-2
    weight = torch.randn(alone.shape, generator=torch.Generator().manual_seed(0))
    params = [p for n, p in model.named_parameters() if not n.endswith('k.bias')]  # its gradient is zero, and rounding
    grads = [torch.autograd.grad((y * weight).sum(), params) for y in (packed, alone)]
    for a, b in zip(*grads): assert share(a, b) < 1e-5


@pytest.mark.parametrize('arch', ['llama', 'gpt2'])
def test_initial_weights_depend_on_seed_and_name_alone(arch):
    c = Config(**BASE | dict(arch=arch))
    model = Transformer(c, seed=3)
    torch.manual_seed(99)
    again = Transformer(c)
    again._modules = dict(reversed(again._modules.items()))  # the same names, in another order
    names = [n for n, _ in again.named_parameters()]
    init_weights(again, 3)
    assert names != [n for n, _ in model.named_parameters()]
    theirs = again.state_dict()
    for n, p in model.state_dict().items(): assert torch.equal(p, theirs[n]), n
    other = dict(Transformer(c, seed=4).named_parameters())
    assert all(not torch.equal(p, other[n]) for n, p in model.named_parameters() if p.ndim > 1)


def test_scaled_projections_and_nothing_else():
    for n_layer in (2, 8):
        model = Transformer(Config(**BASE | dict(n_layer=n_layer, n_embd=128, n_hidden=256, tied=False)), seed=0)
        for name, p in model.named_parameters():
            if p.ndim < 2: assert p.eq(1).all()
            else:
                want = 0.02 / math.sqrt(2 * n_layer) if name.endswith(('o.weight', 'down.weight')) else 0.02
                assert abs(p.std().item() / want - 1) < 0.05, name


@pytest.mark.parametrize('name', ['llama', 'llama-untied', 'gpt2'])
def test_untrained_loss_is_log_v(name):
    c = Config(**BASE | CONFIGS[name] | dict(vocab_size=1024))
    with torch.no_grad(): loss = next_loss(Transformer(c, seed=0)(ids := ids_of(c, 8, 60)), ids)
    assert abs(loss.item() - math.log(1024)) < 0.05


def test_tied_is_one_tensor():
    tied, untied = model_of('llama'), model_of('llama-untied')
    assert tied.head.weight is tied.embed.weight and untied.head.weight is not untied.embed.weight
    assert count_parameters(untied) - count_parameters(tied) == 97 * 32
    assert count_parameters(tied, embedding=False) == count_parameters(untied, embedding=False)


@pytest.mark.parametrize('size,V,changes,published', [
    ('124m', 50257, dict(arch='gpt2'), 124_439_808), ('350m', 50257, dict(arch='gpt2'), 354_823_168),
    ('1b', 128_256, {}, 1_235_814_400), ('7b', 32_000, dict(tied=False), 6_738_415_616)])
def test_sizes_are_the_published_ones(size, V, changes, published):
    with torch.device('meta'): model = Transformer(config_for(size, V, **changes))
    assert count_parameters(model) == published


def test_every_size_builds():
    for size in SIZES:
        for arch in ('llama', 'gpt2'):
            with torch.device('meta'): model = Transformer(config_for(size, 512, arch))
            assert model(torch.zeros(1, 4, dtype=torch.long, device='meta')).shape == (1, 4, 512)
            assert isinstance(model, Decoder) and len(model.blocks) == SIZES[size]['n_layer']


def test_parts_equal_their_formulas():
    x = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    norm = RMSNorm(8, eps=1e-3)
    norm.weight.data = torch.arange(8.)
    torch.testing.assert_close(norm(x), x / (x.square().mean(-1, keepdim=True) + 1e-3).sqrt() * torch.arange(8.))
    gated, plain = SwiGLU(8, 12), MLP(8, 12)
    g = x @ gated.gate.weight.T
    torch.testing.assert_close(gated(x), (g * g.sigmoid() * (x @ gated.up.weight.T)) @ gated.down.weight.T)
    z = plain.up(x)
    bent = 0.5 * z * (1 + torch.tanh(math.sqrt(2 / math.pi) * (z + 0.044715 * z**3)))
    torch.testing.assert_close(plain(x), plain.down(bent))


def test_positions_may_be_given_per_row():
    for name in ('llama', 'gpt2'):
        model = model_of(name)
        ids = ids_of(model.config, 2, 6)
        torch.testing.assert_close(model(ids), model(ids, torch.arange(6).expand(2, 6)))
        assert (model(ids) - model(ids, torch.arange(6) * 2)).abs().max() > 1e-3


WRONG = [
    (dict(n_embd=33), '33'), (dict(n_kv_head=3), '3 key/value'), (dict(arch='lama'), 'lama'),
    (dict(n_embd=12), 'head_dim 3'),
    (dict(n_head=0), 'n_head 0'), (dict(vocab_size=-1), 'vocab_size -1'), (dict(n_layer='2'), "n_layer '2'"),
    (dict(theta=0), 'theta 0'), (dict(norm='batch'), "norm 'batch'"), (dict(activation='relu'), "'relu'"),
    (dict(qk_norm=1), 'qk_norm 1'), (dict(rope=dict(rope_type='ntk')), "'ntk' is not known"),
    (dict(arch='gpt2', rope=dict(rope_type='linear', factor=2.0)), 'no rotary'),
    (dict(rope=dict(rope_type='llama3', factor=2.0)), 'original_max_position_embeddings')]


@pytest.mark.parametrize('wrong,says', WRONG)
def test_shapes_that_cannot_be_built(wrong, says):
    with pytest.raises(UserError, match=says): Config(**BASE | wrong)


def test_gpt2_may_have_heads_of_odd_size():
    model = Transformer(Config(**BASE | dict(arch='gpt2', n_embd=12)))
    assert model(torch.zeros(1, 4, dtype=torch.long)).shape == (1, 4, 97)


def test_an_unknown_size_names_the_nearest():
    with pytest.raises(UserError, match="did you mean 'nano'"): config_for('nanno', 10)


def test_a_block_that_writes_nothing_changes_nothing():
    block, x = Block(Config(**BASE)), torch.randn(1, 5, 32)
    for part in (block.attention.o, block.mlp.down): torch.nn.init.zeros_(part.weight)
    assert torch.equal(block(x), x)


def test_targets_are_answered_with_their_log_probabilities():
    for name in ('llama', 'llama-untied', 'gpt2'):
        model = model_of(name)
        ids = ids_of(model.config)
        with torch.no_grad(): logits, log_probs = model(ids[:, :-1]), model(ids[:, :-1], targets=ids[:, 1:])
        want = logits.log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1)
        assert log_probs.shape == (2, 22) and (log_probs < 0).all()
        torch.testing.assert_close(log_probs, want, atol=1e-6, rtol=1e-6)
        bf16 = token_log_probs(logits.bfloat16(), ids[:, 1:])  # computed in fp32 from what is given
        torch.testing.assert_close(bf16, logits.bfloat16().float().log_softmax(-1).gather(-1, ids[:, 1:, None]).squeeze(-1))


def test_ignored_targets_are_zero_and_have_no_gradient():
    logits = torch.randn(2, 5, 11, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.tensor([[3, -100, 0, 10, -100], [-100] * 5])
    log_probs = token_log_probs(logits, targets)
    assert log_probs[targets == -100].eq(0).all() and (log_probs[targets != -100] < 0).all()
    log_probs.sum().backward()
    assert logits.grad[targets == -100].eq(0).all() and logits.grad[targets != -100].ne(0).any(-1).all()


def test_entropy_is_log_v_of_uniform_logits_and_never_more():
    for V in (2, 97, 1024):
        torch.testing.assert_close(token_entropy(torch.full((2, 3, V), 5.0)), torch.full((2, 3), math.log(V)))
        assert (token_entropy(torch.randn(2, 3, V)) < math.log(V)).all()
    certain = torch.zeros(1, 1, 8)
    certain[..., 3] = 200
    assert token_entropy(certain).item() == 0
    model = model_of('llama')
    ids = ids_of(model.config)
    log_probs, entropy = model(ids[:, :-1], targets=ids[:, 1:], entropy=True)
    assert torch.equal(log_probs, model(ids[:, :-1], targets=ids[:, 1:]))
    p = model(ids[:, :-1]).softmax(-1)
    torch.testing.assert_close(entropy, -(p * p.log()).sum(-1))


@pytest.mark.parametrize('name', ['llama-gqa', 'llama-untied', 'gpt2'])
def test_gradients_of_log_probs_are_cross_entropys_to_the_last_bit(name):
    model = model_of(name)
    ids = ids_of(model.config)
    labels = ids[:, 1:].clone()
    labels[0, :7] = -100
    n = labels.ne(-100).sum().item()
    params = list(model.parameters())
    share = -model(ids[:, :-1], targets=labels).sum() / n
    whole = F.cross_entropy(model(ids[:, :-1]).flatten(0, 1), labels.flatten())
    for a, b in zip(torch.autograd.grad(share, params), torch.autograd.grad(whole, params)): assert torch.equal(a, b)


def test_flops_are_six_per_weight_that_multiplies_and_twelve_per_layer_width_and_place():
    for name in ('llama', 'llama-untied', 'gpt2', 'gpt2-untied'):
        model = model_of(name)
        c, read = model.config, 0
        if not c.tied: read += model.embed.weight.numel()  # the table is read, the head multiplies
        if c.arch == 'gpt2': read += model.position_embed.weight.numel()
        for T in (16, 64):
            assert flops_per_token(model, T) == 6 * (count_parameters(model) - read) + 12 * c.n_layer * c.n_embd * T


def test_the_exercise_on_norms_takes_any_small_epsilon_and_no_other_norm():
    def so_far(eps):
        def norm(x):
            tokens = torch.arange(1, x.size(1) + 1)
            squares = x.square().sum(-1).cumsum(1) / (tokens * x.size(-1))
            return x / (squares + eps).sqrt()[..., None]
        return norm

    def by_loop(x):
        sizes = [x[:, :t + 1].square().mean((1, 2)).sqrt() for t in range(x.size(1))]
        return x / torch.stack(sizes, 1).unsqueeze(-1)

    for right in (so_far(0), so_far(1e-5), by_loop):
        assert grade('transformer.3', right)
    wrong = {
        'that it must not': lambda x: x / x.square().mean((1, 2), keepdim=True).sqrt(),
        'another row': lambda x: x / x.square().mean((0, 2), keepdim=True).sqrt(),
        'Token 0': lambda x: F.normalize(x, dim=-1),
        'Token 1': RMSNorm(8),
        'must not be changed': lambda x: x.div_(by_loop(x))}
    for words, answer in wrong.items():
        assert words in repr(grade('transformer.3', answer))


def test_the_exercise_on_bits_takes_any_tokenizer():
    assert grade('transformer.4', lambda encode, V, text: math.log(V) * len(encode(text)) / math.log(2) / len(text.encode()))
    for wrong in (
        lambda encode, V, text: len(encode(text)) * math.log2(V) / len(text),
        lambda encode, V, text: len(encode(text)) * math.log(V) / len(text.encode()),
        lambda encode, V, text: math.log2(V)):
        assert not grade('transformer.4', wrong)


@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_the_norm_can_be_differentiated_twice_and_by_torch_func(dtype):
    norm, g = RMSNorm(6).to(dtype), torch.Generator().manual_seed(0)
    x, gain = torch.randn(4, 3, 6, generator=g).to(dtype), torch.rand(6, generator=g).to(dtype)
    def ours(x, gain): return (functional_call(norm, {'weight': gain}, x) ** 3).sum()
    def theirs(x, gain): return (x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * gain).pow(3).sum()
    def second(f): return lambda x, gain: jacrev(jacrev(f))(x[0], gain)
    def cross(f): return lambda x, gain: jacrev(lambda x: grad(f, 1)(x, gain))(x)
    def per_row(f): return lambda x, gain: vmap(grad(f, (0, 1)), (0, None))(x, gain)
    for made in (grad, second, cross, per_row):
        torch.testing.assert_close(made(ours)(x, gain), made(theirs)(x, gain), atol=1e-4, rtol=1e-4)
    leaf = x.clone().requires_grad_()
    for f in (ours, theirs):
        slope, = torch.autograd.grad(f(leaf, gain), leaf, create_graph=True)
        twice = torch.autograd.grad(slope.square().sum(), leaf)[0]
        if f is ours: kept = twice
    torch.testing.assert_close(kept, twice, atol=1e-3, rtol=1e-3)


def test_the_function_of_the_norm_by_nudges():
    x, gain = (torch.rand(shape, dtype=torch.double, requires_grad=True) for shape in ((2, 3, 5), (5,)))
    def norm(x, gain): return _norm(x, gain, 1e-5)
    assert torch.autograd.gradcheck(norm, (x, gain)) and torch.autograd.gradgradcheck(norm, (x, gain))


@pytest.mark.parametrize('name', ['llama-gqa', 'gpt2', 'qwen3'])
def test_per_example_gradients_of_a_decoder(name):
    model = model_of(name)
    ids, params = ids_of(model.config, T=7), dict(model.named_parameters())
    def loss(params, row): return -functional_call(model, params, (row[None, :-1],), dict(targets=row[None, 1:])).sum()
    rows = vmap(grad(loss), (None, 0), randomness='different')(params, ids)
    alone = grad(loss)(params, ids[1])
    for key, g in alone.items(): torch.testing.assert_close(rows[key][1], g, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name', ['llama', 'gpt2'])
def test_what_is_longer_than_the_block_is_refused(name):
    model, cache = model_of(name), [KVCache() for _ in range(3)]
    assert model(ids_of(model.config, 1, 64)).shape == (1, 64, 97)
    with torch.no_grad(): assert model(ids_of(model.config, 1, 64), cache=cache).shape == (1, 64, 97)
    ids = ids_of(model.config, 1, 65)
    assert model(ids, torch.arange(65) % 8).shape == (1, 65, 97) # several short texts, or answers that share a prompt
    calls = [lambda: model(ids), lambda: model(ids[:, :1], cache=cache),
             lambda: model(ids[:, :2], torch.tensor([63, 64])), lambda: model(ids[:, :2], torch.tensor([-1, 0]))]
    for call, words in zip(calls, ['65 .* 64', '65 .* 64', '63 to 64.* 64', '-1 to 0.* 64']):
        with pytest.raises(UserError, match=words): call()


@pytest.mark.parametrize('name', ['llama-gqa', 'gpt2', 'qwen3'])
@torch.no_grad()
def test_padding_changes_nothing_and_leaks_nothing(name):
    model = model_of(name)
    row = ids_of(model.config, 1, 6)
    left = torch.cat([torch.zeros(1, 3, dtype=torch.long), row], 1)
    right = torch.cat([row, torch.zeros(1, 3, dtype=torch.long)], 1)
    ids, real = torch.cat([left, right]), torch.tensor([[0] * 3 + [1] * 6, [1] * 6 + [0] * 3])
    positions = torch.tensor([[0, 0, 0, 0, 1, 2, 3, 4, 5], list(range(9))])
    alone = model(row)
    for mask in (real, real.bool(), real.bool()[:, None, None]):
        y = model(ids, positions, mask=mask)
        torch.testing.assert_close(y[:1, 3:], alone, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(y[1:, :6], alone, atol=1e-5, rtol=1e-5)
        assert y.isfinite().all()
    cache = [KVCache() for _ in range(3)]
    first = model(ids[:1, :5], positions[:1, :5], mask=real[:1, :5], cache=cache)
    then = model(ids[:1, 5:], positions[:1, 5:], mask=real[:1], cache=cache)
    torch.testing.assert_close(torch.cat([first, then], 1)[:, 3:], alone, atol=1e-5, rtol=1e-5)
    everything = torch.ones(1, 1, 6, 6, dtype=torch.bool)
    torch.testing.assert_close(model(row, mask=everything), alone, atol=1e-5, rtol=1e-5)
    assert (model(row, mask=everything, causal=False) - alone).abs().max() > 1e-3
    assert (model(row, causal=False) - alone).abs().max() > 1e-3
    segments = torch.tensor([[0, 0, 0, 1, 1, 1]])
    one, both = model(row, segments=segments), model(row, segments=segments, mask=everything)
    torch.testing.assert_close(one, both)


def test_masks_that_do_not_fit_are_refused():
    model = model_of('llama')
    ids = ids_of(model.config, 2, 6)
    for mask in (torch.ones(6, 6), torch.ones(2, 7), torch.ones(2, 6, 6), torch.ones(2, 1, 5, 6)):
        with pytest.raises(UserError, match='a mask of shape'): model(ids, mask=mask.bool())
    with pytest.raises(UserError, match='a mask of torch.float32'): model(ids, mask=torch.zeros(2, 6))


def test_choices_follow_arch_and_equal_shapes_are_equal():
    assert Config(activation='silu', norm='rms', qkv_bias=False, head_dim=32) == Config()
    assert Config(arch='gpt2', activation='gelu') != Config(arch='gpt2', activation='gelu_tanh') == Config(arch='gpt2')
    for changed in (dict(norm='layer'), dict(activation='gelu'), dict(qk_norm=True), dict(mlp_bias=True), dict(head_dim=6)):
        model = Transformer(Config(**BASE | changed), seed=0)
        assert model(ids_of(model.config)).isfinite().all()
