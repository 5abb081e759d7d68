// What the update rules of all optimisers share, for (14), (15) and their descendants.  Each rule is one
// struct in one file (sgd.cuh, rmsprop.cuh, ...) that moves one parameter; the rest stands here.
//
// The generated text before this one (gpumlp/backend/sources.py) defines STATE_BUFFERS, how many state
// buffers the rule has; USED, of which bit i says whether the i-th is in use; and what step.cuh needs.

// A number of each parameter (M, P) for each state buffer; 0 where it is not in use.
struct StateBuffers { Real* at[STATE_BUFFERS]; };

__device__ __forceinline__ constexpr bool used(int buffer)
{
    return USED >> buffer & 1u;
}

// Neighbours that share a learning rate; `decay` is what their penalties and weight decay are multiplied
// with: 1 for the weights W, 0 for others, or a factor of their own.
struct Slice { Real lr, decay; };

// What a rule starts from: the network's hyperparameters, in registers, and its step, the t-th.
struct UpdateRule {
    Real h[HYPERS];
    Step step;

    __device__ __forceinline__ void begin(const Real* hyper, const Step& now, Real)
    {
        #pragma unroll
        for (int i = 0; i < HYPERS; ++i) h[i] = hyper[i];
        step = now;
    }

    // The clipped gradient with the penalties of (14) and (14'), where they act.
    __device__ __forceinline__ Real penalised(Real g, Real theta, const Slice& slice) const
    {
        g *= step.clip;
        if (slice.decay == Real(0)) return g;
        const Real sign = Real(theta > Real(0)) - Real(theta < Real(0));
        return g + step.decay * slice.decay * (h[L2] * theta + h[L1] * sign);
    }
};

// Moves a pack of neighbours with their state, which lies `offset` Reals from where the buffers begin.
// What would overflow stays, so that the weights in place are finite; returns whether all could move.
// If CHOSEN, bit k of `chosen` says whether the k-th may move.
template<bool CHOSEN = false, class Rule>
__device__ __forceinline__ bool move_pack(const Rule& rule, Pack<VEC>& theta, const Pack<VEC>& g,
    const StateBuffers& buffers, long long offset, const Slice& slice, unsigned chosen = ~0u)
{
    bool all = true;
    Pack<VEC> state[STATE_BUFFERS] = {};
    #pragma unroll
    for (int i = 0; i < STATE_BUFFERS; ++i)
        if (used(i)) state[i] = load<VEC>(buffers.at[i] + offset);
    const Real keep = Real(1) - slice.lr * rule.h[WEIGHT_DECAY] * slice.decay;
    #pragma unroll
    for (int k = 0; k < VEC; ++k) {
        Real moved = theta.v[k] * keep, after[STATE_BUFFERS];
        #pragma unroll
        for (int i = 0; i < STATE_BUFFERS; ++i) after[i] = state[i].v[k];
        rule.move(moved, rule.penalised(g.v[k], theta.v[k], slice), after, slice.lr);
        bool moves = isfinite(moved);
        #pragma unroll
        for (int i = 0; i < STATE_BUFFERS; ++i) moves = moves & isfinite(after[i]);
        if constexpr (CHOSEN) {
            const bool may = chosen >> k & 1u;
            all &= moves | !may;
            moves &= may;
        } else
            all &= moves;
        #pragma unroll
        for (int i = 0; i < STATE_BUFFERS; ++i) state[i].v[k] = moves ? after[i] : state[i].v[k];
        theta.v[k] = moves ? moved : theta.v[k];
    }
    #pragma unroll
    for (int i = 0; i < STATE_BUFFERS; ++i)
        if (used(i)) store<VEC>(buffers.at[i] + offset, state[i]);
    return all;
}
