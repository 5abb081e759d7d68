// The numbers of a step of each network: what decides them, and where they lie.
//
// The numbers of the hyperparameters' columns (LR, L1, ...: HYPERS in gpumlp/functions/optimizer_base.py) and
// those of the scalars (GO, ...) are defined before this text.

// The numbers of this step for one network, computed by the last block of `prepare_update`.
struct Step { Real go, clip, lr, decay; };

__device__ __forceinline__ Step step_of(const Real* scalars, long long network)
{
    const Real* s = scalars + network * SCALARS;
    return Step{s[GO], s[CLIP_SCALE], s[RATE], s[DECAY_SCALE]};
}

// What the penalties are multiplied with: 1, or 1 / sum of weights.
__device__ __forceinline__ Real decay_scale(const Real* h, Real w_sum)
{
    return h[DECAY_PER_WEIGHT] > Real(0) ? Real(1) / w_sum : Real(1);
}

// Whether a network moves (finite loss and gradient, some weight, not halted), its step number t, and
// the scalars s of the step.  rates: the schedule's factors for the updates first_rate,
// first_rate + 1, ..., or 0.  Returns whether the batch counts: it has weight, and is not too late.
__device__ __forceinline__ bool decide(Real loss, Real w_sum, Real length, const Real* h,
    const Real* rates, long long first_rate, long long& t, long long& halted, Real* s)
{
    const bool counts = halted == 0 && w_sum != Real(0);
    const bool finite = isfinite(loss) && isfinite(length) && w_sum > Real(0);
    s[GO] = Real(counts && finite);
    if (!counts) return false;
    if (!finite) {
        halted = t + 1;                                 // sticky: the update skips it from now on
        return true;
    }
    s[RATE] = h[LR] * (rates ? rates[t - first_rate] : Real(1));
    s[DECAY_SCALE] = decay_scale(h, w_sum);
    s[CLIP_SCALE] = h[CLIP_NORM] > Real(0) && length > h[CLIP_NORM] ? h[CLIP_NORM] / length : Real(1);
    t += 1;
    return true;
}
