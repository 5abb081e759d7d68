// Equations (14) and (15), and their descendants, over the flat buffer of all layers and networks.
//
// A buffer is (M, P), P a multiple of 128 bytes; the weights W, which penalties act on, come first and
// end at `decayed`.  The generated text before this one (gpumlp/backend/sources.py) defines Rule, the update
// rule of an optimiser, the parameters and arguments for its state buffers, and FACTORS: whether each slice
// of the buffer, which ends at a multiple of 128 bytes, has factors on learning rate and decay of its own; and
// OCCURRING: whether of the first parameters, W^T of sparse rows, only those of features that occur move.
//
// Bytes per parameter: 3 Reals, and 2 for each state buffer in use.

// Bit k: whether parameter p + k may move, as one whose feature occurs or that is none of W^T.
__device__ __forceinline__ unsigned moving_of(
    const unsigned char* occurs, unsigned long long p, long long features, long long units)
{
    long long feature = p / units, unit = p % units;
    unsigned moving = 0;
    #pragma unroll
    for (int k = 0; k < VEC; ++k) {
        if (feature >= features || occurs[feature]) moving |= 1u << k;
        if (++unit == units) unit = 0, ++feature;
    }
    return moving;
}

// One block works on a chunk of one network, which moves if `prepare_update` has decided so.
// occurs (M, features): whether the parameters of a feature move, `units` for each; 0 without OCCURRING.
// ends: where the slices end, ascending; rate, decay: their factors; all 0 without FACTORS.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) update(
    Real* theta, const Real* g, STATE_PARAMETERS, const Real* scalars, const Real* hyper,
    const long long* t, long long* halted, long long size, long long decayed, int chunks,
    const long long* ends, const Real* rate, const Real* decay,
    const unsigned char* occurs, long long features, long long units)
{
    const StateBuffers buffers{{STATE_ARGUMENTS}};
    const Place at = place<1>(1, chunks);
    const Step step = step_of(scalars, at.network);
    if (step.go == Real(0)) return;
    Rule rule;
    rule.begin(hyper + at.network * HYPERS, step, Real(t[at.network]));
    bool all = true;
    int s = 0;                                          // the slice; a thread's packs ascend
    for (long long i = item(at); i < size / VEC; i += at.step * THREADS) {
        const long long offset = at.network * size + i * VEC;
        unsigned moving = ~0u;                          // bit k: whether number k of the pack may move
        if constexpr (OCCURRING) moving = moving_of(occurs + at.network * features, i * VEC, features, units);
        if (OCCURRING && !moving) continue;
        const bool decays = i * VEC < decayed;
        Slice slice{step.lr, Real(decays)};
        if constexpr (FACTORS) {
            while (i * VEC >= ends[s]) ++s;
            slice = Slice{step.lr * rate[s], decay[s]};
        }
        Pack<VEC> value = load<VEC>(theta + offset);
        const Pack<VEC> gradient = load<VEC>(g + offset);
        all &= move_pack<OCCURRING>(rule, value, gradient, buffers, offset, slice, moving);
        store<VEC>(theta + offset, value);
    }
    if (!all) atomicMax(halted + at.network, t[at.network]);    // it was 0; others may find it, too
}
