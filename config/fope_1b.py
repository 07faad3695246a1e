# The paper's 1.2B model (Table 2, Appendix B): FoPE at N = 512 on 10B tokens of C4, which
# python -m data.prepare c4 makes:
#   python train.py config/fope_1b.py                       one GPU of 48 GB: 200 hours at the paper's rate
#   torchrun --nproc_per_node=4 train.py config/fope_1b.py  four: 50 hours on the paper's A6000s
# Compiled, it needs about 31 GB of the card, and 5 more with several processes (computed, not measured).
name = "1b"
dataset = "c4"
block_size = 512
n_layer = 16
n_head = 16
n_embd = 2048
fope_sigma = 0.6
batch_size = 8
gradient_accumulation_steps = 128  # over all processes: 1024 sequences a step
max_iters = 19_073  # of 1024 x 512 tokens: 10B
eval_interval = 1000
eval_tokens = 1_000_000
learning_rate = 6e-4
min_lr = 6e-5
warmup_iters = 10_000
