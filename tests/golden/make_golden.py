"""Makes the golden files beside this script: a small GPT's logits, loss, gradients and its parameters
after 20 AdamW updates, computed by PyTorch in float64.

    python3 make_golden.py        (needs torch, numpy and safetensors)

Every parameter is drawn at random, gains and biases too, so that no term can be left out unnoticed.
eps is 1e-4 because the gradient of the key biases is zero in exact arithmetic (softmax ignores what is
common to a row): with an eps near zero Adam would turn its rounding noise into whole steps."""

import json
import pathlib

import torch
import torch.nn.functional as F
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent
STEPS, SEQUENCES = 20, 3
ADAMW = dict(beta1=0.9, beta2=0.98, eps=1e-4, weight_decay=0.1, clip_norm=0.5)
LEARNING_RATE = 0.01
NORM_EPS = 1e-5

CASES = {
    "mup": dict(
        shape=dict(n_layers=2, d_model=16, n_heads=2, d_ff=64, n_vocab=23, context_len=8, tied_head=True),
        parametrization=dict(kind="mup", base_width=8, embedding_std=0.05, hidden_gain=0.5, output_multiplier=2.0),
    ),
    "standard": dict(
        shape=dict(n_layers=2, d_model=12, n_heads=3, d_ff=20, n_vocab=19, context_len=7, tied_head=False),
        parametrization=dict(kind="standard", embedding_std=0.02, hidden_std=0.02, output_multiplier=1.0),
    ),
}


def parameters(shape, generator):
    c, f = shape["d_model"], shape["d_ff"]

    def normal(*dims, std=0.3, mean=0.0):
        return (mean + std * torch.randn(*dims, generator=generator)).float().double().requires_grad_()

    p = {"transformer.wte.weight": normal(shape["n_vocab"], c), "transformer.wpe.weight": normal(shape["context_len"], c)}
    for i in range(shape["n_layers"]):
        h = f"transformer.h.{i}."
        p |= {
            h + "ln_1.weight": normal(c, mean=1.0), h + "ln_1.bias": normal(c),
            h + "attn.c_attn.weight": normal(c, 3 * c), h + "attn.c_attn.bias": normal(3 * c),
            h + "attn.c_proj.weight": normal(c, c), h + "attn.c_proj.bias": normal(c),
            h + "ln_2.weight": normal(c, mean=1.0), h + "ln_2.bias": normal(c),
            h + "mlp.c_fc.weight": normal(c, f), h + "mlp.c_fc.bias": normal(f),
            h + "mlp.c_proj.weight": normal(f, c), h + "mlp.c_proj.bias": normal(c),
        }
    p |= {"transformer.ln_f.weight": normal(c, mean=1.0), "transformer.ln_f.bias": normal(c)}
    if not shape["tied_head"]:
        p["lm_head.weight"] = normal(shape["n_vocab"], c)
    return p


def width_ratio(case):
    mup = case["parametrization"]["kind"] == "mup"
    return case["shape"]["d_model"] / case["parametrization"]["base_width"] if mup else 1.0


def logits(p, tokens, case):
    shape = case["shape"]
    c, n_heads = shape["d_model"], shape["n_heads"]
    b, t = tokens.shape
    norm = lambda x, name: F.layer_norm(x, (c,), p[name + ".weight"], p[name + ".bias"], NORM_EPS)
    linear = lambda x, name: x @ p[name + ".weight"] + p[name + ".bias"]
    x = p["transformer.wte.weight"][tokens] + p["transformer.wpe.weight"][:t]
    for i in range(shape["n_layers"]):
        h = f"transformer.h.{i}."
        qkv = linear(norm(x, h + "ln_1"), h + "attn.c_attn")
        q, k, v = (z.view(b, t, n_heads, c // n_heads).transpose(1, 2) for z in qkv.split(c, 2))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(b, t, c)
        x = x + linear(y, h + "attn.c_proj")
        x = x + linear(F.gelu(linear(norm(x, h + "ln_2"), h + "mlp.c_fc"), approximate="tanh"), h + "mlp.c_proj")
    head = p["transformer.wte.weight" if shape["tied_head"] else "lm_head.weight"]
    multiplier = case["parametrization"]["output_multiplier"] / width_ratio(case)
    return multiplier * (norm(x, "transformer.ln_f") @ head.T)


def loss_of(p, sequences, case):
    z = logits(p, sequences[:, :-1], case)
    return F.cross_entropy(z.flatten(0, 1), sequences[:, 1:].flatten())


def make(name, case):
    generator = torch.Generator().manual_seed(1)
    shape, ratio = case["shape"], width_ratio(case)
    p = parameters(shape, generator)
    dims = (STEPS, SEQUENCES, shape["context_len"] + 1)
    tokens = torch.randint(0, shape["n_vocab"], dims, generator=generator)
    out = {"tokens": tokens.int(), "logits": logits(p, tokens[0, :, :-1], case)}
    loss = loss_of(p, tokens[0], case)
    loss.backward()
    out["loss"] = loss.reshape(1)
    out |= {"param." + n: w.detach().clone() for n, w in p.items()} | {"grad." + n: w.grad.clone() for n, w in p.items()}

    matrix = lambda n: n.endswith("weight") and (".attn." in n or ".mlp." in n)
    groups = [
        dict(params=[w for n, w in p.items() if matrix(n)], lr=LEARNING_RATE / ratio, weight_decay=ADAMW["weight_decay"] * ratio),
        dict(params=[w for n, w in p.items() if not matrix(n)], lr=LEARNING_RATE, weight_decay=0.0),
    ]
    adamw = torch.optim.AdamW(groups, betas=(ADAMW["beta1"], ADAMW["beta2"]), eps=ADAMW["eps"] / ratio)
    losses = []
    for step in range(STEPS):
        adamw.zero_grad()
        loss = loss_of(p, tokens[step], case)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(p.values()), ADAMW["clip_norm"])
        adamw.step()
        losses.append(loss.item())
    out |= {"after." + n: w.detach().clone() for n, w in p.items()}
    out["losses"] = torch.tensor(losses)
    meta = dict(case, adamw=ADAMW, learning_rate=LEARNING_RATE, norm_eps=NORM_EPS, sequences=SEQUENCES, steps=STEPS)
    out = {n: w.detach().float().contiguous() if w.is_floating_point() else w.contiguous() for n, w in out.items()}
    save_file(out, HERE / f"{name}.safetensors", {"case": json.dumps(meta)})
    print(name, "loss", loss.item(), "torch", torch.__version__, "tensors", len(out))


for name, case in CASES.items():
    make(name, case)
