"""The wrong kernels: name -> Bug, by what is wrong with them."""

from . import ADDRESS, MACHINE_CODE, THREAD, Bug

SYNC = "__syncthreads();"
RACE = "WARNING: ThreadSanitizer: data race"
OVERFLOW = "AddressSanitizer: heap-buffer-overflow"
# The stand-in aligns its arrays: a little outside of one there may be nothing that is guarded. The
# numbers tell then, but in a process of its own, as what is overwritten may be anything.
OUTSIDE = f"{OVERFLOW}|AssertionError"

REDUCTIONS = {
    "block_sum adds before all have written": Bug(
        "common.cuh",
        f"warps[t / 32] = value;\n    {SYNC}",
        "warps[t / 32] = value;",
        "prepare_update",
    ),
    "block_sum adds half of each warp": Bug(
        "common.cuh",
        "for (int o = 16; o; o >>= 1) value +=",
        "for (int o = 8; o; o >>= 1) value +=",
        "prepare_update",
    ),
    "block_sum leaves out a warp": Bug(
        "common.cuh", "value = warps[t % WARPS]", "value = warps[t % (WARPS - 1)]", "prepare_update"
    ),
    "a penalty of one block alone": Bug(
        "prepare_update.cu",
        "if (theta) penalty = ordered_sum(penalties, chunks);",
        "",
        "prepare_update",
    ),
    "block_sum overwrites what is still read": Bug(
        "common.cuh",
        f"{SYNC}                                    // the array's last use is over\n",
        "\n",
        "prepare_update",
        *(THREAD, RACE),
    ),
    "column_sum adds before all have written": Bug(
        "columns.cuh",
        f"for (int v = 0; v < V; ++v) sums[v][t] = sum.v[v];\n    {SYNC}",
        "for (int v = 0; v < V; ++v) sums[v][t] = sum.v[v];",
        "tanh",
    ),
    "column_sum adds in steps that are not apart": Bug(
        "columns.cuh",
        f"sums[v][t] += sums[v][t + half * blockDim.x];\n        {SYNC}",
        "sums[v][t] += sums[v][t + half * blockDim.x];",
        "tanh by 128 bits",
    ),
    "column_sum behind a return of some threads": Bug(
        "backward.cu",
        "if (at.column < columns) {",
        "if (at.column >= columns) return;\n    {",
        "tanh",
    ),
    "the block is counted before all have written": Bug(
        "common.cuh",
        f"before the count\n    {SYNC}",
        "before the count",
        "tanh",
        *(THREAD, RACE),
    ),
    "no fence before the count": Bug(
        "common.cuh",
        "__threadfence();                                    // this",
        "// this",
        "tanh",
        *(THREAD, RACE),
    ),
    "no fence after the count": Bug(
        "common.cuh",
        "if (last) *arrived = 0;\n        __threadfence();",
        "if (last) *arrived = 0;",
        "tanh",
        *(THREAD, RACE),
    ),
    "the last block does not wait for the answer": Bug(
        "common.cuh", f"    {SYNC}\n    return last;", "    return last;", "cross entropy"
    ),
    "the counter is not reset": Bug("common.cuh", "if (last) *arrived = 0;", "", "cross entropy"),
    "the last block is one too late": Bug("common.cuh", "== count - 1", "== count", "tanh"),
    "the last chunk's partial sum is forgotten": Bug(
        "columns.cuh", "c < chunks; c +=", "c < chunks - 1; c +=", "tanh"
    ),
    "partial sums of one row of threads": Bug(
        "columns.cuh", "total = column_sum<V>(total);", "", "tanh"
    ),
    "partial sums that only their owner adds": Bug(
        "columns.cuh", "at.tile, chunks)) {", "at.tile, chunks) && owner) {", "tanh"
    ),
    "partial sums of networks in the same place": Bug(
        "losses.cu", "partial + at.network * chunks", "partial", "squared error"
    ),
    "a shuffle with lanes of other rows": Bug(
        "common.cuh",
        "for (int o = blockDim.x / 2; o; o >>= 1) v += __shfl",
        "for (int o = 16; o; o >>= 1) v += __shfl",
        "cross entropy",
    ),
    "a shuffle that not all lanes reach": Bug(
        "losses.cu",
        "first < rows; first += at.step) {",
        "first + threadIdx.y < rows; first += at.step) {",
        "cross entropy",
    ),
}

PLACES = {
    "a chunk begins one row late": Bug(
        "common.cuh",
        "at.row = (long long)at.chunk * blockDim.y",
        "at.row = (at.chunk > 0) + (long long)at.chunk * blockDim.y",
        "tanh",
    ),
    "a chunk of rows stops one short": Bug(
        "forward.cu", "row < rows; row += at.step", "row < rows - 1; row += at.step", "tanh"
    ),
    "rows taken twice": Bug(
        "common.cuh", "at.step = (long long)chunks * blockDim.y", "at.step = blockDim.y", "tanh"
    ),
    "the bias of the first network for all": Bug(
        "forward.cu", "load<V>(b + at.network * b_stride", "load<V>(b", "tanh"
    ),
    "the slope of the first network for all": Bug(
        "backward.cu", "parameters(p + at.network * p_stride)", "parameters(p)", "prelu"
    ),
    "128-bit packs in rows with a tail": Bug(
        "forward.cu",
        "if (columns % STORED_VEC == 0)",
        "if (columns >= STORED_VEC)",
        "tanh",
        *(ADDRESS, "misaligned address"),
    ),
    "128-bit packs in rows of classes with a tail": Bug(
        "common.cuh",
        "return columns % VEC == 0 && (",
        "return (",
        "cross entropy",
        *(ADDRESS, "misaligned address"),
    ),
    "128-bit packs of targets that begin anywhere": Bug(
        "common.cuh",
        "(reinterpret_cast<unsigned long long>(arrays) | ...) % 16 == 0",
        "true",
        "targets that begin anywhere",
        *(ADDRESS, "misaligned address"),
    ),
    "128-bit packs in rows of pairs": Bug(
        "backward.cu",
        "if (columns % DELTA_VEC == 0)",
        "if (columns % 2 == 0)",
        "tanh in pairs",
        *(ADDRESS, "misaligned address"),
    ),
    "columns beyond the row": Bug(
        "forward.cu",
        "if (at.column >= columns) return;",
        "",
        "tanh",
        *(ADDRESS, OUTSIDE),
    ),
    "a row's place in 32 bits": Bug(
        "gather.cu",
        "X + m * x_stride + (long long)source * columns",
        "X + m * x_stride + source * columns",
        "gather beyond 32 bits",
        *(ADDRESS, "signed integer overflow"),
    ),
    "padding that is read": Bug(
        "gather.cu",
        "if (source < 0) {",
        "if (source < -1) {",
        "gather by 128 bits",
        *(ADDRESS, OVERFLOW),
    ),
    "a table without end": Bug(
        "prepare_update.cu",
        "cursor[m] % steps * networks",
        "cursor[m] * networks",
        "prepare_update",
        *(ADDRESS, OUTSIDE),
    ),
}

LAYERS = {
    "another dropout mask in the backward pass": Bug(
        "backward.cu",
        "noise_bits<V>(noise, at.network, element)",
        "noise_bits<V>(noise, at.network, element + 4)",
        "dropout",
    ),
    "dropout without its scale": Bug(
        "forward.cu", "result.v[v] * scale : Real(0)", "result.v[v] : Real(0)", "dropout"
    ),
    "f' of n after dropout": Bug("backward.cu", "value.v[v] /= scale;", "", "dropout, f' from n"),
    "f' from z instead of n": Bug(
        "backward.cu",
        "Activation::df(kept_z.v[v], value.v[v], own.p)",
        "Activation::df(value.v[v], kept_z.v[v], own.p)",
        "tanh",
    ),
    "z kept without its bias": Bug(
        "forward.cu",
        "value.v[v] += bias.v[v];\n            result.v[v] = Activation::f(value.v[v], own.p);",
        "result.v[v] = Activation::f(value.v[v] + bias.v[v], own.p);",
        "dropout",
    ),
    "a NaN that relu hides": Bug(
        "activations.cuh",
        "return z <= Real(0) ? Real(0) : z;",
        "return fmax(z, Real(0));",
        "relu of NaN",
    ),
    "the drawn slope's bits without their place": Bug(
        "forward.cu",
        "random_bits<V>(seed, element, noise.layer, step, SLOPE)",
        "random_bits<V>(seed, element, noise.layer, step, DROPOUT)",
        "drawn slopes",
    ),
    "Philox with one key for both halves": Bug(
        "philox.cuh", "k1 += 0xBB67AE85u", "k1 += 0x9E3779B9u", "Philox"
    ),
    "Philox with nine rounds": Bug("philox.cuh", "round < 10", "round < 9", "Philox"),
    "the second four of eight neighbours with the bits of the first": Bug(
        "philox.cuh", "unsigned(element >> 2) + 1", "unsigned(element >> 2)", "dropout in bfloat16"
    ),
    "f of a sum that is rounded first": Bug(
        "forward.cu",
        "value.v[v] += bias.v[v];",
        "value.v[v] = Real(Stored(value.v[v] + bias.v[v]));",
        "gelu in bfloat16",
    ),
    "a scale of the column before": Bug(
        "scale.cu", "load<PACK>(s + at.column)", "load<PACK>(s + at.column / 2)", "scale"
    ),
    "the gradient of s from the scaled gradient": Bug(
        "scale.cu", "sum.v[v] += g.v[v] *", "sum.v[v] += g.v[v] * factor.v[v] *", "scale"
    ),
    "the next row's weights for this one": Bug(
        "scale.cu", "weight = next_v;", "weight = load<PACK>(V + at.column);", "scale by 128 bits"
    ),
    "a stack's first network scales all": Bug(
        "scale.cu", "s + at.network * s_stride + at.column", "s + at.column", "scale"
    ),
    "a sum of what is rounded": Bug(
        "backward.cu",
        "sum.v[v] += d.v[v];",
        "sum.v[v] += Real(Delta(d.v[v]));",
        "gelu in bfloat16",
    ),
    "a number that is cut instead of rounded": Bug(
        "bf16.cuh", "u + 0x7fffu + (u >> 16 & 1u)", "u", "gelu in bfloat16"
    ),
    "ties that are rounded up": Bug(
        "bf16.cuh", "0x7fffu + (u >> 16 & 1u)", "0x8000u", "copies in bfloat16"
    ),
    "a NaN that is rounded": Bug("bf16.cuh", "x != x ? 0x7fffu : ", "", "copies in bfloat16"),
    "a tail that is not copied": Bug(
        "cast_bf16.cu", "first, step, size - packed", "first, step, 0", "copies in bfloat16"
    ),
    "packs at any address": Bug(
        "cast_bf16.cu",
        "from % 32 == 0 && to % 16 == 0 ? size / BF16_VEC * BF16_VEC : 0",
        "size / BF16_VEC * BF16_VEC",
        "copies in bfloat16",
        *(ADDRESS, "misaligned address"),
    ),
    "packs from nearly any address": Bug(
        "cast_bf16.cu", "from % 32", "from % 31", "copies to any place"
    ),
    "packs to nearly any address": Bug("cast_bf16.cu", "to % 16", "to % 15", "copies to any place"),
    "packs under way that are not there": Bug(
        "common.cuh",
        "left > (LOADS - 1) * step",
        "left > (LOADS - 2) * step",
        "copies in bfloat16",
        *(ADDRESS, f"{OUTSIDE}|AddressSanitizer: unknown-crash"),  # a load across the array's end
    ),
    "the row before the next": Bug(
        "forward.cu",
        "z + base + element + at.step * columns",
        "z + base + element",
        "tanh",
    ),
    "Philox's four words in a pack of another place": Bug(
        "philox.cuh",
        "const unsigned lane = unsigned(element) & 3u",
        "const unsigned lane = 0",
        "dropout",
    ),
}

SPARSE = {
    "rows as they stand in the place of their numbers": Bug(
        "sparse.cu", "numbers ? numbers[m * numbers_stride + row] : row", "row", "sparse product"
    ),
    "the numbers of the first network for all": Bug(
        "sparse.cu", "numbers[m * numbers_stride + row]", "numbers[row]", "sparse product"
    ),
    "padding that has a product": Bug(
        "sparse.cu",
        "if (source >= 0)\n",
        "if (source >= -1)\n",
        "sparse product",
        *(ADDRESS, OUTSIDE),
    ),
    "128-bit packs of units with a tail": Bug(
        "sparse.cu",
        "if (units % WEIGHT_VEC == 0)",
        "if (units >= WEIGHT_VEC)",
        "sparse product",
        *(ADDRESS, "misaligned address"),
    ),
    "the last non-zero left out": Bug(
        "sparse.cuh", "j = first; j < last; ++j", "j = first; j < last - 1; ++j", "sparse product"
    ),
    "the last warp's features are not cleared": Bug(
        "sparse.cu",
        "first < features; first += 32 * at.step",
        "first + 32 < features; first += 32 * at.step",
        "sparse gradient",
    ),
    "one of 32 features is cleared": Bug(
        "sparse.cu",
        "left; left &= left - 1) {\n            Real* row",
        "left; left = 0) {\n            Real* row",
        "sparse gradient",
    ),
    "a gradient that is cleared without its tail": Bug(
        "sparse.cu",
        "unit = lane; unit < units; unit += 32",
        "unit = lane; unit < 32; unit += 32",
        "sparse gradient",
    ),
    "features that occurred and still do": Bug(
        "sparse.cu", "if (clear) occurs[feature] = 0;", "", "sparse gradient"
    ),
    "a feature of every share": Bug(
        "sparse.cu",
        "there && share_of(column, shares) == share",
        "there",
        "sparse gradient",
    ),
    "lanes without a non-zero that count": Bug(
        "sparse.cu", "there && share_of", "share_of", "sparse gradient"
    ),
    "the rows behind the first 32 left out": Bug(
        "sparse.cu", "top < rows; top += 32", "top < 32; top += 32", "sparse gradient in order"
    ),
    "non-zeros behind the first 32 left out": Bug(
        "sparse.cu", "j < last; j += 32", "j < last; j = last", "sparse gradient"
    ),
    "rows in another order": Bug(
        "sparse.cu",
        "for (int r = 0; r < 32 && top + r < rows; ++r) {",
        "for (int r = rows - top < 32 ? int(rows - top) - 1 : 31; r >= 0; --r) {",
        "sparse gradient in order",
    ),
    "units beyond the row": Bug(
        "sparse.cu",
        "if (unit < units) G[",
        "G[",
        "sparse gradient",
        *(THREAD, RACE),
    ),
}

LOSSES = {
    "softmax without subtracting the maximum": Bug(
        "objective.cuh", "top = row_max(top);", "top = Real(0);", "large logits"
    ),
    "labels off by one": Bug(
        "objective.cuh", "== column + v)", "== column + v + 1)", "cross entropy"
    ),
    "a loss that is not divided by the weights": Bug(
        "objective.cuh", "mean ? Real(1) / w_sum : Real(1)", "Real(1)", "squared error"
    ),
    "delta that is not divided by the weights": Bug(
        "losses.cu",
        "d.v[v] = weight * factor * Form::dl",
        "d.v[v] = weight * Form::dl",
        "squared error",
    ),
    "a row without weight that is read": Bug(
        "losses.cu",
        "if (weight > Real(0)) {",
        "{",
        "squared error, NaN without weight",
    ),
    "the weights of the first network for all": Bug(
        "losses.cu", "w[at.network * w_stride + row]", "w[row]", "cross entropy"
    ),
}

UPDATES = {
    "penalties on biases": Bug(
        "update.cu", "const bool decays = i * VEC < decayed", "const bool decays = true", "SGD"
    ),
    "a penalty on the first biases": Bug(
        "update.cu",
        "const bool decays = i * VEC < decayed",
        "const bool decays = i * VEC <= decayed",
        "SGD",
    ),
    "Adam's correction one step ahead": Bug(
        "adam.cuh", "-expm1(t * log_beta)", "-expm1((t + Real(1)) * log_beta)", "Adam"
    ),
    "epsilon without its correction": Bug(
        "adam.cuh", "h[EPSILON_CORRECTED] > Real(0) ? root : Real(1)", "Real(1)", "Adam"
    ),
    "epsilon always corrected": Bug(
        "adam.cuh", "h[EPSILON_CORRECTED] > Real(0) ? root : Real(1)", "root", "plain epsilon"
    ),
    "gradients that are not clipped": Bug("update_rule.cuh", "g *= step.clip;", "", "SGD"),
    "a clipping factor above 1": Bug(
        "step.cuh", "&& length > h[CLIP_NORM] ?", "?", "prepare_update"
    ),
    "factors of the slice before": Bug(
        "update.cu", "while (i * VEC >= ends[s]) ++s;", "while (i * VEC > ends[s]) ++s;", "factors"
    ),
    "a slice's weight decay without its factor": Bug(
        "update_rule.cuh", "rule.h[WEIGHT_DECAY] * slice.decay", "rule.h[WEIGHT_DECAY]", "factors"
    ),
    "a slice's penalty without its factor": Bug(
        "update_rule.cuh", "step.decay * slice.decay *", "step.decay *", "factors"
    ),
    "halted networks that move": Bug("update.cu", "if (step.go == Real(0)) return;", "", "frozen"),
    "what overflows": Bug(
        "update_rule.cuh", "moves = moves & isfinite(after[i]);", "moves = true;", "overflow"
    ),
    "an overflow that halts nothing": Bug(
        "update.cu", "if (!all) atomicMax(halted + at.network, t[at.network]);", "", "overflow"
    ),
    "features of the first network for all": Bug(
        "update.cu", "moving_of(occurs + at.network * features,", "moving_of(occurs,", "occurring"
    ),
    "a pack that moves as its first number": Bug(
        "update.cu", "if (++unit == units) unit = 0, ++feature;", "", "occurring"
    ),
    "parameters behind the features that stay": Bug(
        "update.cu",
        "feature >= features || occurs[feature]",
        "feature < features && occurs[feature]",
        "occurring",
    ),
    "features that stay, with their pack's others": Bug(
        "update_rule.cuh", "moves &= may;", "", "occurring"
    ),
    "an overflow of what stays": Bug(
        "update_rule.cuh", "all &= moves | !may;", "all &= moves;", "occurring, overflow"
    ),
    "a halt that does not last": Bug("step.cuh", "halted == 0 && w_sum", "w_sum", "events"),
    "a gradient that is not looked at": Bug(
        "step.cuh", "isfinite(loss) && isfinite(length)", "isfinite(loss)", "events"
    ),
    "hyperparameters of the first network for all": Bug(
        "update.cu", "rule.begin(hyper + at.network * HYPERS,", "rule.begin(hyper,", "SGD"
    ),
}

MINIBATCHES = {
    "rows of the block that adds weights": Bug(
        "gather.cu", "step = (long long)chunks * blockDim.y", "step = at.step", "gather"
    ),
    "padding that counts": Bug(
        "gather.cu",
        "sum += source < 0 ? Real(0) : weight ?",
        "sum += source >= 0 && weight ?",
        "gather",
    ),
    "weights of the first block that adds them": Bug(
        "gather.cu", "ordered_sum(parts, sums)", "ordered_sum(parts, 1)", "gather many rows"
    ),
    "weights of networks in the same place": Bug(
        "gather.cu", "partial + m * sums", "partial", "gather many rows"
    ),
    "weights that several blocks add": Bug(
        "gather.cu", "row += sums * THREADS", "row += THREADS", "gather many rows"
    ),
    "weights before all blocks have added theirs": Bug(
        "gather.cu", "if (!last_block(arrived + m, sums)) return;", "", "gather many rows"
    ),
    "the same batch at every step": Bug("gather.cu", " + cursor[m] * batch", "", "gather"),
    "the targets of the first network for all": Bug(
        "gather.cu", "dense[m * y_stride +", "dense[", "gather targets"
    ),
    "numbers without padding": Bug(
        "gather.cu",
        "if (numbers) numbers[out] = source;",
        "if (numbers && source >= 0) numbers[out] = source;",
        "gather sparse rows",
    ),
    "the numbers of networks in the same place": Bug(
        "gather.cu", "numbers[out] = source", "numbers[row] = source", "gather sparse rows"
    ),
    "shuffle keys that are not unique": Bug(
        "shuffle.cu", "(unsigned long long)row", "(unsigned long long)(row & 1023)", "shuffle"
    ),
    "keys that do not tell networks apart": Bug(
        "shuffle.cu", "(network << 32 | bits)", "bits", "shuffle"
    ),
    "a row's number without its highest bit": Bug(
        "shuffle.cu", "(1ull << low) - 1", "(1ull << (low - 1)) - 1", "shuffle"
    ),
    "the same order in every epoch": Bug(
        "shuffle.cu", "row, 0u, epoch, SHUFFLE", "row, 0u, 0u, SHUFFLE", "shuffle"
    ),
}

RESIDENTS = {
    "a tile that is used before it is there": Bug(
        "persistent.cu",
        f"tile_source, tile_weight);\n            {SYNC}",
        "tile_source, tile_weight);",
        "persistent_kernel",
        *(THREAD, RACE),
    ),
    "z that is activated before it is there": Bug(
        "persistent.cu",
        f"= value; }});\n    {SYNC}",
        "= value; });",
        "persistent_kernel",
    ),
    "delta in the place of an n that is still read": Bug(
        "persistent.cu",
        f"{SYNC}                                // n^(k-1) has been read",
        "",
        "persistent_kernel",
    ),
    "a tile that is overwritten while it is read": Bug(
        "persistent.cu",
        f"{SYNC}                            // the tile's memory is free",
        "",
        "persistent_kernel",
    ),
    "the norm of a gradient that is not there yet": Bug(
        "persistent.cu",
        f"finish_slopes<1>(net, slope);\n        {SYNC}",
        "finish_slopes<1>(net, slope);",
        "persistent_kernel",
        *(THREAD, RACE),
    ),
    "a step that is taken before it is decided": Bug(
        "persistent.cu",
        f"        }}\n        {SYNC}\n\n        const Step go",
        "        }\n\n        const Step go",
        "persistent_kernel",
    ),
    "sums over the block that are read too early": Bug(
        "persistent.cu",
        f"parts[s][t / 32] = value[s];\n    {SYNC}",
        "parts[s][t / 32] = value[s];",
        "persistent_kernel",
    ),
    "the gradient of the last tile alone": Bug(
        "persistent.cu", "tile.count, tile.first > 0)", "tile.count, false)", "persistent_kernel"
    ),
    "a tile with rows that are not there": Bug(
        "persistent.cu",
        "tile.count = rows - tile.first < TILE ? rows - tile.first : TILE;",
        "tile.count = TILE;",
        "persistent_kernel",
        *(ADDRESS, f"{OUTSIDE}|LaunchError"),
    ),
    "every tile with the masks of the first": Bug(
        "persistent.cu", "(long long)(tile.first + row)", "(long long)row", "persistent_kernel"
    ),
    "the same masks in every update": Bug(
        "persistent.cu", "net.step = unsigned(now_t);", "net.step = 0;", "persistent_kernel"
    ),
    "padding that counts in a tile": Bug(
        "persistent.cu",
        "return source < 0 ? Real(0) : weight ?",
        "return source >= 0 && weight ?",
        "persistent_kernel",
    ),
    "padding that is read in a tile": Bug(
        "persistent.cu",
        "if (from >= 0) pack",
        "pack",
        "resident by 128 bits",
        *(ADDRESS, OUTSIDE),
    ),
    "the last columns left out of a product by rows": Bug(
        "persistent_products.cuh",
        "for (int i = WHOLE; i < DEPTH; ++i) add_by_rows",
        "for (int i = WHOLE; i < DEPTH - 1; ++i) add_by_rows",
        "persistent_kernel",
    ),
    "the last columns left out of a product by columns": Bug(
        "persistent_products.cuh",
        "for (int i = WHOLE; i < DEPTH; ++i) add_by_columns",
        "for (int i = WHOLE; i < DEPTH - 1; ++i) add_by_columns",
        "persistent_kernel",
    ),
    "a gradient beyond its matrix": Bug(
        "persistent_products.cuh",
        "if (j + r < OUTPUTS && i + c < INPUTS) {",
        "{",
        "resident, rests",
    ),
    "deltas of rows that are not there": Bug(
        "persistent_products.cuh", "row + r < count && column", "column", "resident, rests"
    ),
    "packs across the end of a row": Bug(
        "persistent_products.cuh",
        "while (COLUMNS % most) most /= 2;",
        "",
        "persistent_kernel",
    ),
    "the first network's parameters for all": Bug(
        "persistent.cu",
        "= buffers[b][m * SIZE + there];",
        "= buffers[b][there];",
        "persistent_kernel",
    ),
    "an optimiser's state that is not written back": Bug(
        "persistent.cu",
        "buffers[b][m * SIZE + there] = memory[",
        "if (b == 0) buffers[b][m * SIZE + there] = memory[",
        "persistent_kernel",
    ),
    "penalties on resident biases": Bug(
        "persistent.cu", "Real(i < DECAYED)", "Real(1)", "persistent_kernel"
    ),
    "networks that move without weight": Bug(
        "persistent.cu", "if (go.go == Real(0)) continue;", "", "persistent_kernel"
    ),
    "a cursor that is read when it may have moved on": Bug(
        "persistent.cu",
        "for (long long rest = step + thread; rest < begin + steps;",
        "for (long long rest = step + thread; rest < cursor[m] + steps;",
        "resident, stopped",
        *(THREAD, RACE),
    ),
    "batches that are not counted": Bug(
        "persistent.cu", "cursor[m] = begin + steps;", "cursor[m] = begin;", "persistent_kernel"
    ),
    "f' of the output left out": Bug(
        "persistent.cu",
        "if constexpr (!FUSED)\n",
        "if constexpr (false)\n",
        "resident, f' of the output",
    ),
    "a slope's gradient without the output's part": Bug(
        "persistent.cu",
        "(long long)(tile.first + row) * L::OUTPUTS + j, slope);",
        "(long long)(tile.first + row) * L::OUTPUTS + j, sum);",
        "resident, f' of the output",
    ),
}

COMPILED = {
    "a double literal": Bug(
        "activations.cuh",
        "erf(z * Real(0.70710678118654752))",
        "erf(z * 0.70710678118654752)",
        "layer-gelu",
        *(MACHINE_CODE, "float64 instructions"),
    ),
    "a double constant of a loss": Bug(
        "losses.cuh",
        "return Real(0.5) * (u - y) * (u - y);",
        "return 0.5 * (u - y) * (u - y);",
        "loss-SquaredError",
        *(MACHINE_CODE, "float64 instructions"),
    ),
    "registers indexed at run time": Bug(
        "rmsprop.cuh",
        "u = h[MOMENTUM]",
        "u = h[int(g)]",
        "update-RMSprop-square-velocity",
        *(MACHINE_CODE, "local memory"),
    ),
    "no 128-bit loads": Bug(
        "forward.cu",
        "activate_tile<STORED_VEC>(",
        "activate_tile<1>(",
        "layer-tanh",
        *(MACHINE_CODE, "loads of 128 bits, fewer than 2"),
    ),
    "16 bits at a time": Bug(
        "common.cuh",
        "if constexpr (V == 8) ",
        "if constexpr (V > 8) ",
        "cast_bf16",
        *(MACHINE_CODE, "stores of 128 bits, fewer than 5"),
    ),
}

BUGS = REDUCTIONS | PLACES | LAYERS | SPARSE | LOSSES | UPDATES | MINIBATCHES | RESIDENTS | COMPILED
