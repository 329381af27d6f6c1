// BatchNorm of GELU in training, forward and backward, on a CPU: float32, channels last.
//
// Both are bound by memory, so each reads as little as it can: two passes over the tokens, in which GELU is computed anew
// instead of being written and read. torch's two operators take four passes forward and five backward, and keep GELU's output
// for the backward pass. Same bits for the same number of threads: each has a fixed stretch of tokens, of which it adds up 64
// in float32 and these sums in float64, and the threads' sums are added in their order.

#include <cmath>

#include "blocks.h"

namespace {

constexpr int64_t TOGETHER = 64;  // tokens that are added up in float32

struct Shape {
    int64_t tokens, channels;

    int64_t blocks() const { return blocks_of(channels); }
};

// Per-channel numbers in whole blocks, and per thread two sums of each channel.
struct Workspace {
    Block *factor, *offset, *slope, *centre, *sums;
    double *totals;

    Workspace(float *memory, const Shape &shape, int threads) {
        Block *blocks = reinterpret_cast<Block *>(memory);
        factor = blocks, offset = factor + shape.blocks(), slope = offset + shape.blocks(), centre = slope + shape.blocks();
        sums = centre + shape.blocks();
        totals = reinterpret_cast<double *>(sums + threads * 2 * shape.blocks());
    }
};

// e^-u for u >= 0, to 2 units in the last place: 2^n times a polynomial in the fraction that is left.
// Coefficients: Cephes, exp2f.
inline Block exp_of_minus(Block u) {
    const Block most = Block{} + 87.0f, rounding = Block{} + 12582912.0f;  // e^-87 is the smallest normal number; 1.5 * 2^23
    const Block power = (u < most ? u : most) * -1.44269504088896341f, shifted = power + rounding;
    const Block fraction = power - (shifted - rounding);
    Block sum = Block{} + 1.535336188319500e-4f;
    sum = sum * fraction + 1.339887440266574e-3f;
    sum = sum * fraction + 9.618437357674640e-3f;
    sum = sum * fraction + 5.550332471162809e-2f;
    sum = sum * fraction + 2.402264791363012e-1f;
    sum = sum * fraction + 6.931472028550421e-1f;
    sum = sum * fraction + 1.0f;
    return (Block)((Integers)sum + ((Integers)shifted << 23));
}

struct Normal {
    Block below, bell;  // the normal distribution up to x, and e^(-x^2 / 2)
};

// To 1e-7: Abramowitz & Stegun, Handbook of Mathematical Functions, 7.1.26, whose coefficients are halved here.
inline Normal normal(Block x) {
    const Block size = x < 0.0f ? -x : x, bell = exp_of_minus(size * size * 0.5f);
    const Block t = 1.0f / (1.0f + size * 0.231641888f);  // 0.3275911 / sqrt(2)
    Block sum = Block{} + 0.5307027145f;
    sum = sum * t - 0.7265760135f;
    sum = sum * t + 0.7107068705f;
    sum = sum * t - 0.142248368f;
    sum = sum * t + 0.127414796f;
    const Block tail = sum * t * bell;
    return {x < 0.0f ? tail : 1.0f - tail, bell};
}

inline Block gelu(Block x) { return x * normal(x).below; }

struct Pair {
    Block first, second;
};

// totals[2 * channels] = sums over all tokens of the two terms(token, block, lanes). Each thread has its own copy of `terms`,
// which the compiler can keep in registers: for all it knows, what is stored might change the original.
template <class Terms>
void add_up(const Shape &shape, int threads, const Workspace &space, const Terms &given) {
    const int64_t size = 2 * shape.blocks() * LANES;
    std::memset(space.totals, 0, threads * size * sizeof(double));
    in_parallel(threads, [&](int64_t thread, int64_t team) {
        const Terms terms = given;
        Block *sums = space.sums + thread * 2 * shape.blocks();
        double *totals = space.totals + thread * size;
        const int64_t end = shape.tokens * (thread + 1) / team;
        for (int64_t token = shape.tokens * thread / team; token < end;) {
            std::memset(sums, 0, 2 * shape.blocks() * sizeof(Block));
            for (const int64_t until = std::min(token + TOGETHER, end); token < until; ++token)
                for_blocks(shape.channels, [&](int64_t block, auto lanes) {
                    const Pair found = terms(token, block, lanes);
                    sums[2 * block] += found.first;
                    sums[2 * block + 1] += found.second;
                });
            for (int64_t at = 0; at < size; ++at) totals[at] += sums[at / LANES][at % LANES];
        }
    });
    for (int64_t thread = 1; thread < threads; ++thread)
        for (int64_t at = 0; at < size; ++at) space.totals[at] += space.totals[thread * size + at];
}

// result[token][block] = value(token, block, lanes)
template <class Value>
void write(const Shape &shape, int threads, float *result, const Value &given) {
    in_parallel(threads, [&](int64_t thread, int64_t team) {
        const Value value = given;
        for (int64_t token = shape.tokens * thread / team; token < shape.tokens * (thread + 1) / team; ++token)
            for_blocks(shape.channels, [&](int64_t block, auto lanes) {
                store(result + token * shape.channels + block * LANES, value(token, block, lanes), lanes);
            });
    });
}

// Where a channel's pair of sums lies in the totals.
struct Place {
    int64_t block, lane, first, second;

    explicit Place(int64_t channel)
        : block(channel / LANES), lane(channel % LANES), first(2 * block * LANES + lane), second(first + LANES) {}
};

}  // namespace

extern "C" int64_t gelu_norm_workspace(int64_t channels, int threads) {
    return LANES * blocks_of(channels) * (4 + threads * (2 + 2 * 2));  // a double is two floats
}

// normed = (gelu(x) - mean) * deviation * weight + bias, with the batch's mean, variance (biased) and 1 / sqrt(variance + eps).
// Sums are of differences to the first token's value: a channel whose mean is far from zero loses no digits.
extern "C" void gelu_norm_forward(const float *x, const float *weight, const float *bias, float eps, float *normed, float *mean,
                                  float *variance, float *deviation, int64_t tokens, int64_t channels, int threads,
                                  float *workspace) {
    const Shape shape{tokens, channels};
    const Workspace space(workspace, shape, threads);
    const auto value = [=](int64_t token, int64_t block, auto lanes) {
        return gelu(load(x + token * channels + block * LANES, lanes));
    };
    for_blocks(channels, [&](int64_t block, auto lanes) { space.centre[block] = value(0, block, lanes); });
    add_up(shape, threads, space, [=](int64_t token, int64_t block, auto lanes) {
        const Block difference = value(token, block, lanes) - space.centre[block];
        return Pair{difference, difference * difference};
    });
    for (int64_t channel = 0; channel < channels; ++channel) {
        const Place at(channel);
        const double away = space.totals[at.first] / tokens, spread = space.totals[at.second] / tokens - away * away;
        mean[channel] = float(space.centre[at.block][at.lane] + away);
        variance[channel] = float(std::max(spread, 0.0));
        deviation[channel] = float(1 / std::sqrt(std::max(spread, 0.0) + eps));
        space.factor[at.block][at.lane] = deviation[channel] * weight[channel];
        space.offset[at.block][at.lane] = bias[channel];
        space.centre[at.block][at.lane] = mean[channel];
    }
    write(shape, threads, normed, [=](int64_t token, int64_t block, auto lanes) {
        return (value(token, block, lanes) - space.centre[block]) * space.factor[block] + space.offset[block];
    });
}

// With y = gelu(x) and n tokens:  dy = deviation * weight * (g - sum(g) / n - (y - mean) * deviation^2 * sum(g * (y - mean)) / n)
// and dx = dy * gelu'(x), where gelu'(x) = normal(x) + x * e^(-x^2 / 2) / sqrt(2 pi).
extern "C" void gelu_norm_backward(const float *x, const float *gradient, const float *weight, const float *mean,
                                   const float *deviation, float *for_x, float *for_weight, float *for_bias, int64_t tokens,
                                   int64_t channels, int threads, float *workspace) {
    const Shape shape{tokens, channels};
    const Workspace space(workspace, shape, threads);
    for_blocks(channels, [&](int64_t block, auto lanes) { space.centre[block] = load(mean + block * LANES, lanes); });
    add_up(shape, threads, space, [=](int64_t token, int64_t block, auto lanes) {
        const int64_t at = token * channels + block * LANES;
        const Block g = load(gradient + at, lanes);
        return Pair{g, g * (gelu(load(x + at, lanes)) - space.centre[block])};
    });
    for (int64_t channel = 0; channel < channels; ++channel) {
        const Place at(channel);
        const double sum = space.totals[at.first], dot = space.totals[at.second], inverse = deviation[channel];
        for_bias[channel] = float(sum);
        for_weight[channel] = float(dot * inverse);
        space.factor[at.block][at.lane] = float(weight[channel] * inverse);
        space.offset[at.block][at.lane] = float(-weight[channel] * inverse * sum / tokens);
        space.slope[at.block][at.lane] = float(-weight[channel] * inverse * inverse * inverse * dot / tokens);
    }
    write(shape, threads, for_x, [=](int64_t token, int64_t block, auto lanes) {
        const int64_t at = token * channels + block * LANES;
        const Block input = load(x + at, lanes);
        const Normal found = normal(input);
        const Block y = load(gradient + at, lanes) * space.factor[block] + space.offset[block]
                        + (input * found.below - space.centre[block]) * space.slope[block];
        return y * (found.below + input * found.bell * 0.39894228040143268f);
    });
}
