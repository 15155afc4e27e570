"""A training step of a GPT-2 in PyTorch, the peer of `staged bench step` at the same shape.

    python3 scripts/torch_step.py --shape 12x640x10 --context 256 --vocab 8192 --batch 128 --micro-batch 64 --bf16
    python3 scripts/torch_step.py --device cpu --threads 2 --shape 4x128x4 --context 128 --vocab 512 --batch 16

Fused attention, fused AdamW, clipping, and with --bf16 autocast over f32 parameters; matrix products of f32 may use
TF32 on a GPU. --compile compiles the model. Prints tok/s=NUMBER and TFLOP/s of the median step, with FLOPs
counted as `staged bench step` does (6 N with attention's products and the head), and the memory that tensors took at
most on a GPU, the process on a CPU."""

import argparse
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--shape", default="12x768x12")
parser.add_argument("--context", type=int, default=1024)
parser.add_argument("--vocab", type=int, default=50257)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--micro-batch", type=int, help="sequences a pass; by default all")
parser.add_argument("--device", default="cuda", help="cuda, cuda:NUMBER or cpu")
parser.add_argument("--threads", type=int, help="of the CPU; by default as many as PyTorch takes")
parser.add_argument("--steps", type=int, default=20)
parser.add_argument("--warmup", type=int, default=5)
parser.add_argument("--bf16", action="store_true")
parser.add_argument("--compile", action="store_true")
args = parser.parse_args()
micro_batch = args.micro_batch or args.batch
if args.batch % micro_batch:
    parser.error(f"--micro-batch {micro_batch}: must divide --batch {args.batch}")
if args.threads:
    torch.set_num_threads(args.threads)
layers, width, heads = map(int, args.shape.split("x"))
torch.backends.cuda.matmul.allow_tf32 = True


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, t, _ = x.shape
        q, k, v = self.qkv(self.norm1(x)).view(b, t, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(attended.transpose(1, 2).reshape(b, t, width))
        return x + self.narrow(F.gelu(self.wide(self.norm2(x)), approximate="tanh"))


class Gpt(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens, self.positions = nn.Embedding(args.vocab, width), nn.Embedding(args.context, width)
        self.blocks = nn.ModuleList(Block() for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        nn.init.normal_(self.tokens.weight, std=0.02)

    def forward(self, inputs, targets):
        x = self.tokens(inputs) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        logits = F.linear(self.norm(x), self.tokens.weight)
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


device = torch.device(args.device)
on_gpu = device.type == "cuda"
gpt = Gpt().to(device)
model = torch.compile(gpt) if args.compile else gpt
optimizer = torch.optim.AdamW(gpt.parameters(), lr=1e-3, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
passes = args.batch // micro_batch
seconds = []
for step in range(args.warmup + args.steps):
    if on_gpu:
        torch.cuda.synchronize(device)
    began = time.perf_counter()
    total = torch.zeros((), device=device)
    for _ in range(passes):
        text = torch.randint(args.vocab, (micro_batch, args.context + 1)).to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=args.bf16):
            loss = model(text[:, :-1], text[:, 1:]) / passes
        loss.backward()
        total += loss.detach()
    nn.utils.clip_grad_norm_(gpt.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    total.item()
    seconds.append(time.perf_counter() - began)
median = statistics.median(seconds[args.warmup :])
hidden = 12 * layers * width**2
flops = 6 * hidden + 12 * layers * width * args.context + 6 * width * args.vocab
speed = args.batch * args.context / median
memory = torch.cuda.max_memory_allocated(device) if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
tflops = flops * speed / 1e12
print(f"tok/s={speed:.0f} TFLOP/s={tflops:.3g} step={1e3 * median:.1f}ms memory={memory / 1e6:.0f}MB")
