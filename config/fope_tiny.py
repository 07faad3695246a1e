# What `python train.py` runs: a model whose curves past the training length can be seen in minutes.
#
#     python train.py                    FoPE
#     python train.py --pos=rope         any other encoding, in out/rope_tiny

name = "tiny"
dataset = "python"  # made from the Python source on this disk, in bytes
passkey_frac = 0.5  # half of the rows teach the passkey, which text alone would take far longer to teach

block_size = 256
n_layer = 3
n_head = 2  # of 64 dimensions, as the paper's
n_embd = 128
local_window = 64
logn = True
qk_norm = True

batch_size = 8
max_iters = 2000
learning_rate = 1.2e-3
min_lr = 1.2e-4
warmup_iters = 50

log_interval = 50
eval_interval = 1000
eval_tokens = 32_768
