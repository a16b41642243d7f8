// The native half of the example: the same thumbnail by libjpeg-turbo.
//
//     leveret build thumbnails.cpp -- -lturbojpeg        (Debian: apt-get install g++ libturbojpeg0-dev)
#include <turbojpeg.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <leveret/worker.hpp>
#include <stdexcept>
#include <string>
#include <vector>

namespace {

using leveret::arg;

constexpr int kQuality = 85;

struct made {
  int width = 0, height = 0;
  std::int64_t bytes = 0;
};

std::vector<unsigned char> read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) leveret::reject("cannot read " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// libjpeg-turbo's handles, one of each a thread.
class thumbnailer {
 public:
  thumbnailer() : in_(tjInitDecompress()), out_(tjInitCompress()) {
    if (in_ == nullptr || out_ == nullptr) throw std::runtime_error("libjpeg-turbo cannot be set up");
  }
  thumbnailer(thumbnailer&& other) noexcept
      : in_(std::exchange(other.in_, nullptr)), out_(std::exchange(other.out_, nullptr)) {}
  thumbnailer& operator=(thumbnailer&&) = delete;
  ~thumbnailer() {
    if (in_ != nullptr) tjDestroy(in_);
    if (out_ != nullptr) tjDestroy(out_);
  }

  made operator()(const std::string& path, const std::string& target, int width) {
    const std::vector<unsigned char> jpeg = read(path);
    int w = 0, h = 0, sampling = 0, colors = 0;
    if (tjDecompressHeader3(in_, jpeg.data(), jpeg.size(), &w, &h, &sampling, &colors) != 0) {
      leveret::reject(path + " is no JPEG file: " + tjGetErrorStr2(in_));
    }
    const int to_w = std::min(width, w);
    const int to_h = std::max(1, static_cast<int>((std::int64_t{h} * to_w + w / 2) / w));
    // The decoder scales by powers of two for nothing; the rest is averaged.
    int by = 1;
    while (by < 8 && w / (by * 2) >= to_w && h / (by * 2) >= to_h) by *= 2;
    const int mid_w = TJSCALED(w, (tjscalingfactor{1, by})), mid_h = TJSCALED(h, (tjscalingfactor{1, by}));
    std::vector<unsigned char> pixels(std::size_t(mid_w) * std::size_t(mid_h) * 3);
    if (tjDecompress2(in_, jpeg.data(), jpeg.size(), pixels.data(), mid_w, 0, mid_h, TJPF_RGB, 0) != 0 &&
        tjGetErrorCode(in_) == TJERR_FATAL) {
      leveret::reject("cannot decode " + path + ": " + tjGetErrorStr2(in_));
    }
    const std::vector<unsigned char> small = shrink(pixels, mid_w, mid_h, to_w, to_h);
    unsigned char* coded = nullptr;
    unsigned long size = 0;
    const int failed = tjCompress2(out_, small.data(), to_w, 0, to_h, TJPF_RGB, &coded, &size, TJSAMP_420, kQuality, 0);
    if (failed != 0) throw std::runtime_error(std::string("cannot encode: ") + tjGetErrorStr2(out_));
    std::ofstream file(target, std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(coded), static_cast<std::streamsize>(size));
    tjFree(coded);
    if (!file.flush()) throw std::runtime_error("cannot write " + target);
    return {to_w, to_h, static_cast<std::int64_t>(size)};
  }

 private:
  // The mean of the pixels that each new one covers, parts of pixels counted as such.
  static std::vector<unsigned char> shrink(const std::vector<unsigned char>& from, int w, int h, int to_w, int to_h) {
    std::vector<unsigned char> to(std::size_t(to_w) * std::size_t(to_h) * 3);
    const double sx = double(w) / to_w, sy = double(h) / to_h;
    for (int y = 0; y < to_h; ++y) {
      const double top = y * sy, bottom = (y + 1) * sy;
      for (int x = 0; x < to_w; ++x) {
        const double left = x * sx, right = (x + 1) * sx;
        double sum[3] = {0, 0, 0};
        for (int v = int(top); v < std::min(h, int(bottom) + 1); ++v) {
          const double tall = std::min(bottom, v + 1.0) - std::max(top, double(v));
          for (int u = int(left); u < std::min(w, int(right) + 1); ++u) {
            const double area = tall * (std::min(right, u + 1.0) - std::max(left, double(u)));
            if (area <= 0) continue;
            const unsigned char* pixel = &from[(std::size_t(v) * std::size_t(w) + std::size_t(u)) * 3];
            for (int c = 0; c < 3; ++c) sum[c] += area * pixel[c];
          }
        }
        unsigned char* pixel = &to[(std::size_t(y) * std::size_t(to_w) + std::size_t(x)) * 3];
        for (int c = 0; c < 3; ++c) pixel[c] = static_cast<unsigned char>(std::min(255.0, sum[c] / (sx * sy) + 0.5));
      }
    }
    return to;
  }

  tjhandle in_, out_;
};

}  // namespace

template <>
struct leveret::fields<made> {
  static constexpr auto list =
      std::make_tuple(leveret::field("width", &made::width), leveret::field("height", &made::height),
                      leveret::field("bytes", &made::bytes));
};

LEVERET_TASKS(tasks) {
  tasks.add_per_thread(
           "thumbnail_native", [] { return thumbnailer(); }, arg("path"), arg("target"), arg("width") = 128)
      .queue("thumbnails-native");
}
