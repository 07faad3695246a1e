# Between the tiny model and the paper's 60M: 10M parameters, what one older server core trains in an hour.
#
#     python train.py config/fope_10m.py                the corpus and the share of passkeys of the tiny recipe
#     python train.py config/fope_10m.py --pos=alibi    eight heads, so that ALiBi has its eight slopes (1/2 ... 1/256)
#
# Too few tokens for its size, 4M, so it shows what position encodings do past N and not how good the model can become.
name = "10m"
dataset = "python"
passkey_frac = 0.5

block_size = 256
n_layer = 4
n_head = 8
n_embd = 384

# The 60M's rate, and small steps: the passkey is learnt by their number.
batch_size = 4
max_iters = 4000
learning_rate = 6e-4
min_lr = 6e-5
warmup_iters = 100

log_interval = 50
eval_interval = 1000
eval_tokens = 65_536
