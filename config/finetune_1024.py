# Figure 3: the 60M models of N = 512 are trained on at 1024, on 1B tokens of C4. As it stands, FoPE to FoPE:
#   python train.py config/finetune_1024.py                       2 hours on one GPU of 48 GB
#   torchrun --nproc_per_node=4 train.py config/finetune_1024.py  half an hour on the paper's A6000s
# The other rows. As in the released code, YaRN stretches the length that was trained, 512, and FoPE takes its
# floor from the new one, 1024, with YaRN, too:
#   RoPE to FoPE   --init_from=out/rope_60m --name=60m_from_rope
#   FoPE + YaRN    --yarn_scale=16 --yarn_length=512 --name=60m_yarn
#   RoPE + YaRN    --yarn_scale=16 --yarn_length=512 --name=60m_yarn --pos=rope --init_from=out/rope_60m
# The released fine-tuning restores the optimizer's state, too; here it starts anew.
name = "60m_from_fope"
init_from = "out/fope_60m"
dataset = "c4"
block_size = 1024
n_layer = 8
n_head = 8
n_embd = 512
fope_sigma = 0.3
batch_size = 32
gradient_accumulation_steps = 16  # over all processes: 512 sequences a step
max_iters = 1907  # of 512 x 1024 tokens: 1B
eval_interval = 100  # the paper reports the best of these
eval_tokens = 1_000_000
learning_rate = 6e-4
min_lr = 6e-5
warmup_iters = 10_000  # the paper's in all settings; here the rate only rises, to 1.1e-4
