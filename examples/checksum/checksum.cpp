/// SHA-256 of files, one job a file.
///
/// A path is bytes, JSON is Unicode: the sender writes the path in percent-encoding (RFC 3986), which holds any name.
#include <openssl/evp.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <leveret/worker.hpp>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

using leveret::arg;

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return -1;
}

std::string percent_decoded(std::string_view text) {
  std::string bytes;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '%') {
      bytes += text[i];
      continue;
    }
    const int high = i + 1 < text.size() ? hex_digit(text[i + 1]) : -1;
    const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
    if (high < 0 || low < 0) leveret::reject("the path is not percent-encoded");
    bytes += static_cast<char>(high * 16 + low);
    i += 2;
  }
  return bytes;
}

struct closes_file {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
struct frees_digest {
  void operator()(EVP_MD_CTX* digest) const { EVP_MD_CTX_free(digest); }
};

/// The digest's context and the buffer are reused: one of these a thread.
class sha256_of_files {
 public:
  std::string operator()(const std::string& path) {
    const std::unique_ptr<std::FILE, closes_file> file(std::fopen(percent_decoded(path).c_str(), "rbe"));
    // A file that can't be read now won't be readable in a second: no retry.
    if (!file) leveret::reject(std::strerror(errno));
    if (EVP_DigestInit_ex(digest_.get(), EVP_sha256(), nullptr) != 1) throw std::runtime_error("no SHA-256 here");
    std::size_t size = 0;
    while ((size = std::fread(buffer_.data(), 1, buffer_.size(), file.get())) > 0) {
      EVP_DigestUpdate(digest_.get(), buffer_.data(), size);
    }
    if (std::ferror(file.get()) != 0) leveret::reject(std::strerror(errno));
    std::array<unsigned char, EVP_MAX_MD_SIZE> hash{};
    unsigned int length = 0;
    EVP_DigestFinal_ex(digest_.get(), hash.data(), &length);
    std::string hex;
    for (unsigned int i = 0; i < length; ++i) {
      constexpr std::string_view kDigits = "0123456789abcdef";
      hex += kDigits[hash[i] >> 4U];
      hex += kDigits[hash[i] & 15U];
    }
    return hex;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, frees_digest> digest_{EVP_MD_CTX_new()};
  std::vector<char> buffer_ = std::vector<char>(1U << 16U);
};

}  // namespace

LEVERET_TASKS(tasks) {
  tasks.add_per_thread("sha256", [] { return sha256_of_files(); }, arg("path")).queue("checksum");
}

int main(int argc, char** argv) { return leveret::run_worker(argc, argv); }
