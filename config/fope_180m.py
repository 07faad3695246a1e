# The paper's 180M model (Table 2, Appendix B): FoPE at N = 512 on 10B tokens of C4, which
# python -m data.prepare c4 makes:
#   python train.py config/fope_180m.py                       one GPU of 24 GB: 40 hours at the paper's rate
#   torchrun --nproc_per_node=4 train.py config/fope_180m.py  four: 10 hours on the paper's A6000s
# Compiled, it needs about 16 GB of the card (computed, not measured).
name = "180m"
dataset = "c4"
block_size = 512
n_layer = 8
n_head = 8
n_embd = 1024
fope_sigma = 0.4
batch_size = 32
gradient_accumulation_steps = 32  # over all processes: 1024 sequences a step
max_iters = 19_073  # of 1024 x 512 tokens: 10B
eval_interval = 1000
eval_tokens = 1_000_000
learning_rate = 6e-4
min_lr = 6e-5
warmup_iters = 10_000
