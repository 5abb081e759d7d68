// Equations (14) and (15), and their descendants, over the flat buffer of all layers and networks.
//
// A buffer is (M, P), P a multiple of 128 bytes; the weights W, which penalties act on, come first and
// end at `decayed`.  The generated text before this one (gpumlp/backend/sources.py) defines Rule, the update
// rule of an optimiser, and the parameters and arguments for its state buffers.
//
// Bytes per parameter: 3 Reals, and 2 for each state buffer in use.

// One block works on a chunk of one network, which moves if `prepare_update` has decided so.
extern "C" __global__ void __launch_bounds__(THREADS, BLOCKS) update(
    Real* theta, const Real* g, STATE_PARAMETERS, const Real* scalars, const Real* hyper,
    const long long* t, long long* halted, long long size, long long decayed, int chunks)
{
    const StateBuffers buffers{{STATE_ARGUMENTS}};
    const Place at = place<1>(1, chunks);
    const Step step = step_of(scalars, at.network);
    if (step.go == Real(0)) return;
    Rule rule;
    rule.begin(hyper + at.network * HYPERS, step, Real(t[at.network]));
    bool all = true;
    for (long long i = item(at); i < size / VEC; i += at.step * THREADS) {
        const long long offset = at.network * size + i * VEC;
        const bool decays = i * VEC < decayed;
        Pack<VEC> value = load<VEC>(theta + offset);
        const Pack<VEC> gradient = load<VEC>(g + offset);
        all &= move_pack(rule, value, gradient, buffers, offset, Slice{step.lr, Real(decays)});
        store<VEC>(theta + offset, value);
    }
    if (!all) halted[at.network] = t[at.network];       // whoever finds it writes the same
}
