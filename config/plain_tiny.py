# The paper's own transformer in small: no local layers, no log-n, no QK norm; else config/fope_tiny.py, with
# twice the steps, since it learns the passkey slowly.
#
#     python train.py config/plain_tiny.py               FoPE
#     python train.py config/plain_tiny.py --pos=rope    any other encoding, in out/rope_plain

name = "plain"
dataset = "python"
passkey_frac = 0.5

block_size = 256
n_layer = 3
n_head = 2
n_embd = 128

batch_size = 8
max_iters = 4000
learning_rate = 1.2e-3
min_lr = 1.2e-4
warmup_iters = 50

log_interval = 50
eval_interval = 1000
eval_tokens = 32_768
