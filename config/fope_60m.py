# The paper's 60M model (Table 2, Appendix B): FoPE at N = 512 on 10B tokens of C4, which
# python -m data.prepare c4 makes:
#   python train.py config/fope_60m.py                       one GPU: 20 hours at the paper's rate
#   torchrun --nproc_per_node=4 train.py config/fope_60m.py  four: 5 hours on the paper's A6000s
# Figure 1's other curves: --pos=rope, --pos=alibi. Figure 4: --dataset=books --name=60m_books (5B twice).
# Compiled, it needs about 18 GB of the card; with --batch_size=16 --gradient_accumulation_steps=64, whose
# product and so whose steps are the same, 6 GB. On an H100 it should take three hours, a third of its peak,
# and a tenth less with --batch_size=128 --gradient_accumulation_steps=8. All this is computed, not measured.
# AdamW's betas, the weight decay, the clipping and θ are the defaults of train.py and model.py.
name = "60m"
dataset = "c4"
block_size = 512
n_layer = 8
n_head = 8
n_embd = 512
fope_sigma = 0.3
batch_size = 64
gradient_accumulation_steps = 16  # over all processes: 1024 sequences a step with 1, 2, 4, 8 or 16 of them
max_iters = 19_073  # of 1024 x 512 tokens: 10B
eval_interval = 1000
eval_tokens = 1_000_000
learning_rate = 6e-4
min_lr = 6e-5
warmup_iters = 10_000
