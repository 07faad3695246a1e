# Beyond the paper: the tiny model, made to find its keys further past the training length.
#
#     python train.py config/fope_far.py                             about ten minutes on two cores
#     python passkey.py out/fope_far --logn_scale 1 --lengths 256 4096 16384 --trials 50
#
# Three things are added to FoPE, and none of them is training at other lengths: queries that grow with ln n,
# in training (logn_train) and again past N when it is evaluated (--logn_scale 1), against the dilution
# of softmax; q and k normalised, so that their growth in training does not amplify what a position past N
# adds; and 4,000 steps instead of 3,000.

name = "far"
dataset = "python"
passkey_frac = 0.5

block_size = 256
n_layer = 3
n_head = 2
n_embd = 128
qk_norm = True
logn_train = True

optimizer = "muon"
batch_size = 8
max_iters = 4000
learning_rate = 1.2e-3
min_lr = 1.2e-4
warmup_iters = 50

log_interval = 50
eval_interval = 1000
