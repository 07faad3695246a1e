# Table 1's toy models (20M): --pos=rope, rope_a and nope at N = 512, each also with --qk_norm --name=20m_norm
# on C4, which python -m data.prepare c4 makes. The paper tells neither their shape nor their schedule. Ours
# have half the 60M's width with its head_dim, which counts 21M, and 1B tokens.
#   python train.py config/toy_20m.py --pos=rope                            one GPU of 24 GB
#   torchrun --nproc_per_node=4 train.py config/toy_20m.py --pos=rope       four
# A row takes 1.4e17 operations: at a third of its peak an A100 needs 25 minutes for them, an A6000 45.
name = "20m"
dataset = "c4"
pos = "rope"
block_size = 512
n_layer = 8
n_head = 4
n_embd = 256
batch_size = 32
gradient_accumulation_steps = 8  # over all processes: 256 sequences a step
max_iters = 7630  # of 256 x 512 tokens: 1B
eval_interval = 500
eval_tokens = 1_000_000
learning_rate = 6e-4
min_lr = 6e-5
warmup_iters = 700
