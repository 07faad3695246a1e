# Beyond the paper: the tiny model, made to find its keys 16 and 64 times as far as it was trained.
#
#     python train.py config/fope_far.py  ten minutes on one core with bfloat16, half an hour without
#     python train.py config/fope_far.py --fope_series=False --name=far_cf  its clipping alone
#     python passkey.py out/fope_far out/fope_far_cf --lengths 256 4096 16384 --trials 50
#
# It differs from config/fope_tiny.py in four things, and none of them is training at other lengths:
# - local layers, every other one, that see only the last 64 keys, so that far ones cannot mislead them, and
#   the layer between has to find the key (local_window);
# - queries that grow with ln n, n being how many keys they see, in local layers 64 at most, against the
#   dilution of softmax (logn_train);
# - q and k normalised (qk_norm), which may not be needed;
# - 4,000 steps instead of 3,000.
# results/README.md says what it finds.

name = "far"
dataset = "python"
passkey_frac = 0.5

block_size = 256
n_layer = 3
n_head = 2
n_embd = 128
qk_norm = True
logn_train = True
local_window = 64

optimizer = "muon"
batch_size = 8
max_iters = 4000
learning_rate = 1.2e-3
min_lr = 1.2e-4
warmup_iters = 50

log_interval = 50
eval_interval = 1000
