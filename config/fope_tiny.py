# A model whose curves past the training length can be seen in minutes: `python train.py` is this file.
#
#     python train.py                    FoPE; about five minutes on two cores, twelve without bfloat16
#     python train.py --pos=rope         any other encoding, in out/rope_tiny

name = "tiny"
dataset = "python"  # made from the Python source on this disk, in bytes
passkey_frac = 0.5  # half of the rows teach the passkey, which text alone would take far longer to teach

block_size = 256
n_layer = 3
n_head = 2  # of 64 dimensions, as the paper's: in smaller heads few frequencies lie above FoPE's floor
n_embd = 128

# Many small steps, and Muon: with AdamW at this rate FoPE and RoPE mostly do not learn it.
optimizer = "muon"
batch_size = 8
max_iters = 3000
learning_rate = 1.2e-3
min_lr = 1.2e-4
warmup_iters = 50

log_interval = 50
eval_interval = 1000
