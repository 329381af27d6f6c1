// The gradients of a depthwise convolution on a CPU: float32, channels last, stride 1, zeros around the grid, odd k.
//
// Three things make it fast. Grids are copied once into blocks of LANES channels with their zeros around them, so that a
// block's tokens are neighbours in the cache; in the tensors they lie C floats apart, which for a power of two is few
// cache sets. The kernel size is known to the compiler, so that sums over tokens stay in registers while a row of tokens
// passes by. And both gradients come from one visit.
//
// Same bits for the same number of threads: each thread owns a fixed stretch of images, and the threads' sums are added in
// their order. Nothing is allocated here: the caller brings a workspace of `depthwise_workspace` floats, aligned to 64 bytes.

#include "blocks.h"

namespace {

constexpr int64_t TILE = 8;  // tokens of a row that are handled together
constexpr int64_t REGISTERS = 21;  // sums of taps that are kept in registers, beside the TILE gradients
constexpr int64_t MOST_BLOCKS = 4;  // that are copied together: a quarter of a kilobyte at a time out of a token
constexpr int64_t CACHED = 256 * 1024;  // bytes of copied grid that a task should not exceed

struct Shape {
    int64_t images, height, width, channels;

    int64_t blocks() const { return blocks_of(channels); }
    int64_t image() const { return height * width * channels; }
};

// A grid of blocks with its zeros: rows and columns of the kernel's reach around it, and columns up to a whole tile.
struct Grid {
    int64_t margin, rows, columns;

    Grid(const Shape &shape, int64_t k)
        : margin(k / 2), rows(shape.height + k - 1), columns((shape.width + TILE - 1) / TILE * TILE + k - 1) {}
    int64_t size() const { return rows * columns; }
    int64_t together() const { return std::clamp<int64_t>(CACHED / (size() * int64_t(sizeof(Block))), 1, MOST_BLOCKS); }
};

// `count` features of every token of an image, from the first that `image` points to, into one grid per block.
void copy_in(const float *image, int64_t count, const Shape &shape, const Grid &grid, Block *grids) {
    std::memset(grids, 0, blocks_of(count) * grid.size() * sizeof(Block));
    for (int64_t h = 0; h < shape.height; ++h)
        for (int64_t w = 0; w < shape.width; ++w) {
            const float *token = image + (h * shape.width + w) * shape.channels;
            Block *to = grids + (h + grid.margin) * grid.columns + w + grid.margin;
            for (int64_t done = 0; done < count; done += LANES, to += grid.size())
                *to = load(token + done, std::min(LANES, count - done));
        }
}

// taps[first .. first + ROWS)[K] += sum over tokens of input (shifted by the tap) times gradient
template <int K, int ROWS>
void add_taps(const Block *input, const Block *gradient, const Shape &shape, const Grid &grid, int64_t first, Block *taps) {
    Block sums[ROWS][K] = {};
    for (int64_t h = 0; h < shape.height; ++h)
        for (int64_t w = 0; w < shape.width; w += TILE) {
            Block tile[TILE];
            std::memcpy(tile, gradient + (h + grid.margin) * grid.columns + grid.margin + w, sizeof tile);
#pragma GCC unroll 32
            for (int row = 0; row < ROWS; ++row) {
                const Block *from = input + (h + first + row) * grid.columns + w;
#pragma GCC unroll 32
                for (int at = 0; at < TILE + K - 1; ++at) {
                    const Block value = from[at];
#pragma GCC unroll 32
                    for (int tap = 0; tap < K; ++tap)
                        if (0 <= at - tap && at - tap < TILE) sums[row][tap] += value * tile[at - tap];
                }
            }
        }
    for (int row = 0; row < ROWS; ++row)
        for (int tap = 0; tap < K; ++tap) taps[(first + row) * K + tap] += sums[row][tap];
}

template <int K>
void weight_gradient(const Block *input, const Block *gradient, const Shape &shape, const Grid &grid, Block *taps) {
    constexpr int ROWS = REGISTERS / K, REST = K % ROWS;
    for (int64_t first = 0; first + ROWS <= K; first += ROWS)
        add_taps<K, ROWS>(input, gradient, shape, grid, first, taps);
    if constexpr (REST > 0) add_taps<K, REST>(input, gradient, shape, grid, K - REST, taps);
}

// One row of the input's gradient: the output's gradient correlated with the turned filter, stored token by token.
template <int K>
void input_gradient_row(const Block *gradient, const Block *filter, const Shape &shape, const Grid &grid, int64_t h,
                        int64_t lanes, float *image) {
    for (int64_t w = 0; w < shape.width; w += TILE) {
        Block sums[TILE] = {};
        for (int row = 0; row < K; ++row) {
            const Block *from = gradient + (h + row) * grid.columns + w;
            const Block *taps = filter + row * K;
#pragma GCC unroll 32
            for (int at = 0; at < TILE + K - 1; ++at) {
                const Block value = from[at];
#pragma GCC unroll 32
                for (int tap = 0; tap < K; ++tap)
                    if (0 <= at - tap && at - tap < TILE) sums[at - tap] += value * taps[tap];
            }
        }
        float *token = image + (h * shape.width + w) * shape.channels;
        const int64_t tokens = std::min(TILE, shape.width - w);
#pragma GCC unroll 32
        for (int at = 0; at < TILE; ++at)  // a constant count keeps the sums in registers
            if (at < tokens) store(token + at * shape.channels, sums[at], lanes);
    }
}

void bias_gradient(const Block *gradient, const Shape &shape, const Grid &grid, Block *sum) {
    for (int64_t h = 0; h < shape.height; ++h)
        for (int64_t w = 0; w < shape.width; ++w) *sum += gradient[(h + grid.margin) * grid.columns + grid.margin + w];
}

// weight `c k k` -> filters [block][k * k], each turned by half a circle
void turn(const float *weight, const Shape &shape, int64_t taps, Block *filters) {
    for (int64_t c = 0; c < shape.blocks() * LANES; ++c)
        for (int64_t tap = 0; tap < taps; ++tap)
            filters[c / LANES * taps + tap][c % LANES] = c < shape.channels ? weight[(c + 1) * taps - 1 - tap] : 0;
}

struct Tensors {
    const float *input, *gradient, *weight;
    float *input_gradient, *weight_gradient, *bias_gradient;  // the first and the last may be null
};

template <int K>
void backward(const Tensors &tensors, const Shape &shape, int threads, Block *workspace) {
    constexpr int64_t TAPS = K * K, SUMS = TAPS + 1;  // the taps', and the bias's
    const Grid grid(shape, K);
    const int64_t together = grid.together(), parts = (shape.blocks() + together - 1) / together;
    Block *filters = workspace, *sums = filters + shape.blocks() * TAPS;
    Block *grids = sums + threads * shape.blocks() * SUMS;
    if (tensors.input_gradient) turn(tensors.weight, shape, TAPS, filters);
    std::memset(sums, 0, threads * shape.blocks() * SUMS * sizeof(Block));

    in_parallel(threads, [&](int64_t thread, int64_t team) {
        Block *input = grids + thread * 2 * together * grid.size(), *gradient = input + together * grid.size();
        const int64_t tasks = shape.images * parts;
        for (int64_t task = tasks * thread / team; task < tasks * (thread + 1) / team; ++task) {
            const int64_t block = task % parts * together, from = task / parts * shape.image() + block * LANES;
            const int64_t count = std::min(together * LANES, shape.channels - block * LANES);
            copy_in(tensors.gradient + from, count, shape, grid, gradient);
            copy_in(tensors.input + from, count, shape, grid, input);
            for (int64_t at = 0; at * LANES < count; ++at) {
                Block *sum = sums + (thread * shape.blocks() + block + at) * SUMS;
                weight_gradient<K>(input + at * grid.size(), gradient + at * grid.size(), shape, grid, sum);
                bias_gradient(gradient + at * grid.size(), shape, grid, sum + TAPS);
            }
            for (int64_t h = 0; tensors.input_gradient && h < shape.height; ++h)
                for (int64_t at = 0; at * LANES < count; ++at)
                    input_gradient_row<K>(gradient + at * grid.size(), filters + (block + at) * TAPS, shape, grid, h,
                                          std::min(LANES, count - at * LANES), tensors.input_gradient + from + at * LANES);
        }
    });

    for (int64_t c = 0; c < shape.channels; ++c)
        for (int64_t tap = 0; tap < SUMS; ++tap) {
            float total = 0;
            for (int64_t thread = 0; thread < threads; ++thread)
                total += sums[(thread * shape.blocks() + c / LANES) * SUMS + tap][c % LANES];
            if (tap < TAPS) tensors.weight_gradient[c * TAPS + tap] = total;
            else if (tensors.bias_gradient) tensors.bias_gradient[c] = total;
        }
}

}  // namespace

extern "C" int64_t depthwise_workspace(int64_t height, int64_t width, int64_t channels, int64_t k, int threads) {
    const Shape shape{1, height, width, channels};
    const Grid grid(shape, k);
    return LANES * (shape.blocks() * (k * k + threads * (k * k + 1)) + threads * 2 * grid.together() * grid.size());
}

// Returns 0, or 1 for a kernel size that is not compiled in. Tensors are `b h w c` and `c k k`.
extern "C" int depthwise_backward(const float *input, const float *gradient, const float *weight, float *input_gradient,
                                  float *weight_gradient, float *bias_gradient, int64_t images, int64_t height,
                                  int64_t width, int64_t channels, int64_t k, int threads, float *workspace) {
    const Tensors tensors{input, gradient, weight, input_gradient, weight_gradient, bias_gradient};
    const Shape shape{images, height, width, channels};
    Block *blocks = reinterpret_cast<Block *>(workspace);
    switch (k) {
    case 5: backward<5>(tensors, shape, threads, blocks); return 0;
    case 7: backward<7>(tensors, shape, threads, blocks); return 0;
    case 9: backward<9>(tensors, shape, threads, blocks); return 0;
    default: return 1;
    }
}
