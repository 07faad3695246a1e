"""Wrong answers to exercise 4: what each does, the solution's code, the mistake in its place, a word of the
hint."""

LAST = "last = head_dim * math.log(block_size / (2 * math.pi)) / (2 * math.log(rope_theta))\n"

MUTANTS = [
    ("pair 0 forgotten", "math.floor(last) + 1", "math.floor(last)", "one off"),
    ("rounded", "math.floor(last) + 1", "round(last) + 1", "one off"),
    ("not below head_dim / 2", "min(max(count, 0), head_dim // 2)", "max(count, 0)", "and no more"),
    ("negative", "min(max(count, 0), head_dim // 2)", "min(count, head_dim // 2)", "not negative"),
    ("a floor of half a turn", "block_size / (2 * math.pi)", "block_size / math.pi", "wrong number of pairs"),
    ("a turn of 1", "block_size / (2 * math.pi)", "block_size", "radians"),
    ("twice as many pairs", "/ (2 * math.log(rope_theta))", "/ math.log(rope_theta)", "how many pairs"),
    (
        "the undertrained",
        "return min(max(count, 0), head_dim // 2)",
        "return head_dim // 2 - min(max(count, 0), head_dim // 2)",
        "the undertrained pairs were counted",
    ),
    (
        "a float",
        "return min(max(count, 0), head_dim // 2)",
        "return float(min(max(count, 0), head_dim // 2))",
        "int",
    ),
    (
        "a loop",
        "count = math.floor(last) + 1",
        "count = 0\n    while count < head_dim // 2 and rope_theta ** (-2 * count / head_dim) >= "
        "2 * math.pi / block_size:\n"
        "        count += 1",
        "closed form",
    ),
    (
        "a tensor of all pairs",
        LAST + "    count = math.floor(last) + 1",
        "import torch\n    pairs = torch.arange(0, head_dim, 2, dtype=torch.float64)\n"
        "    speeds = rope_theta ** -(pairs / head_dim)\n"
        "    count = int((speeds >= 2 * math.pi / block_size).sum())",
        "closed form",
    ),
    (
        "counted from 1",
        "[*range(first, pairs), *range(first + pairs, head_dim)]",
        "[*range(first + 1, pairs + 1), *range(first + pairs + 1, head_dim + 1)]",
        "counted from 1",
    ),
    (
        "half of each pair",
        "[*range(first, pairs), *range(first + pairs, head_dim)]",
        "[*range(first, pairs)]",
        "two dimensions",
    ),
    (
        "neighbours",
        "[*range(first, pairs), *range(first + pairs, head_dim)]",
        "[*range(2 * first, head_dim)]",
        "neighbours",
    ),
    ("floor for ceil", "math.ceil(2", "math.floor(2", "too short"),
    ("one more pair", "(head_dim - 2)", "head_dim", "too long"),
    ("one too long", "math.ceil(2 * math.pi / slowest)", "math.ceil(2 * math.pi / slowest) + 1", "too long"),
    (
        "the answer for a large head",
        LAST,
        LAST + "    if head_dim > 10**6:\n        return int(0.47772 * (head_dim // 2))\n",
        "expected 0.47",
    ),
    (
        "a search by halves",
        "count = math.floor(last) + 1",
        "low = -1\n    high = head_dim // 2\n    while high - low > 1:\n"
        "        m = (low + high) // 2\n"
        "        if rope_theta ** (-2 * m / head_dim) >= 2 * math.pi / block_size:\n"
        "            low = m\n        else:\n            high = m\n    count = low + 1",
        "there is a loop",
    ),
    (
        "a search by halves that calls itself",
        "count = math.floor(last) + 1",
        "count = search(0, head_dim // 2 + 1, last)\n"
        "    return min(max(count, 0), head_dim // 2)\n\n\n"
        "def search(low, high, last):\n"
        "    m = (low + high) // 2\n"
        "    if low == high:\n        return low\n"
        "    return search(m + 1, high, last) if m <= last else search(low, m, last)\n\n\n"
        "def unused(count, head_dim):",
        "there is a loop",
    ),
    (
        "calls itself for every pair",
        "count = math.floor(last) + 1",
        "count = 0 if head_dim < 2 else kept(block_size, rope_theta, head_dim - 2)\n"
        "    count = math.floor(last) + 1",
        "no recursion",
    ),
    (
        "a function in it that calls itself",
        "count = math.floor(last) + 1",
        "def search(low, high):\n"
        "        m = (low + high) // 2\n"
        "        if low == high:\n            return low\n"
        "        return search(m + 1, high) if m <= last else search(low, m)\n\n"
        "    count = search(0, head_dim // 2 + 1)",
        "calls itself",
    ),
    (
        "a lambda that calls itself",
        "count = math.floor(last) + 1",
        "search = lambda low, high: (\n"
        "        low if low == high else search((low + high) // 2 + 1, high)\n"
        "        if (low + high) // 2 <= last else search(low, (low + high) // 2)\n    )\n"
        "    count = search(0, head_dim // 2 + 1)",
        "calls itself",
    ),
    (
        "a search by halves in reduce",
        "count = math.floor(last) + 1",
        "import functools\n"
        "    step = lambda ends, i: (\n"
        "        ((ends[0] + ends[1]) // 2, ends[1]) if (ends[0] + ends[1]) // 2 <= last\n"
        "        else (ends[0], (ends[0] + ends[1]) // 2)\n    )\n"
        "    count = functools.reduce(step, range(64), (-1, head_dim // 2))[0] + 1",
        "there is a loop",
    ),
    (
        "in float32",
        LAST,
        "import torch\n"
        "    last = head_dim * torch.log(torch.tensor(block_size / (2 * math.pi)))"
        " / (2 * torch.log(torch.tensor(rope_theta)))\n",
        "is it computed in float32",
    ),
    (
        "a little more to be on the safe side",
        "math.floor(last) + 1",
        "math.floor(last + 1e-6) + 1",
        "on the safe side",
    ),
    (
        "dimensions by float32 frequencies",
        "first = kept(block_size, rope_theta, head_dim)",
        "import torch\n    speeds = rope_theta ** -(torch.arange(0, head_dim, 2) / head_dim)\n"
        "    first = int((speeds >= 2 * math.pi / block_size).sum())",
        "wrong dimensions where N is large",
    ),
    (
        "the last turn in float32",
        "slowest = rope_theta ** (-(head_dim - 2) / head_dim)",
        "import torch\n    slowest = float(rope_theta ** -(torch.arange(0, head_dim, 2) / head_dim)[-1])",
        "wrong length",
    ),
]
