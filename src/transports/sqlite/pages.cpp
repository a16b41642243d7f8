#include "transports/sqlite/pages.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <leveret/error.hpp>

#include "transports/sqlite/schema.hpp"

namespace leveret::core::sqlite {

namespace {

constexpr std::size_t kFileHeader = 100;
constexpr std::size_t kLogHeader = 32;
constexpr std::size_t kFrameHeader = 24;
constexpr std::size_t kCached = 64;
constexpr std::uint64_t kLargestPayload = 1ull << 31;
constexpr std::size_t kMostColumns = 16;

std::uint32_t u16(const char* p) {
  return static_cast<std::uint32_t>(static_cast<unsigned char>(p[0]) << 8 | static_cast<unsigned char>(p[1]));
}

std::uint32_t u32(const char* p) { return u16(p) << 16 | u16(p + 2); }

bool is_page_size(std::size_t size) { return size >= 512 && size <= 65536 && (size & (size - 1)) == 0; }

/// SQLite's varint: up to nine bytes, the ninth whole. False: it goes past the end.
bool take_varint(std::string_view& from, std::uint64_t& out) {
  out = 0;
  for (std::size_t i = 0; i < 9; ++i) {
    if (i >= from.size()) return false;
    const auto byte = static_cast<unsigned char>(from[i]);
    if (i == 8) {
      out = out << 8 | byte;
    } else {
      out = out << 7 | (byte & 0x7fu);
    }
    if (i == 8 || byte < 0x80) {
      from.remove_prefix(i + 1);
      return true;
    }
  }
  return false;
}

/// The log's running checksum over words of the byte order that its magic number says.
struct checksum {
  std::uint32_t a = 0;
  std::uint32_t b = 0;
  bool big_endian = false;
  void add(const char* p, std::size_t size) {
    for (std::size_t i = 0; i + 8 <= size; i += 8) {
      std::uint32_t x = u32(p + i);
      std::uint32_t y = u32(p + i + 4);
      if (!big_endian) {
        x = __builtin_bswap32(x);
        y = __builtin_bswap32(y);
      }
      a += x + b;
      b += y + a;
    }
  }
};

std::optional<row> decode(std::string_view payload) {
  std::string_view header = payload;
  std::uint64_t header_size = 0;
  if (!take_varint(header, header_size) || header_size > payload.size()) return std::nullopt;
  const std::size_t size_bytes = payload.size() - header.size();
  if (header_size < size_bytes) return std::nullopt;
  header = payload.substr(size_bytes, static_cast<std::size_t>(header_size) - size_bytes);
  std::string_view values = payload.substr(static_cast<std::size_t>(header_size));
  row out;
  while (!header.empty()) {
    std::uint64_t type = 0;
    if (!take_varint(header, type) || out.size() >= kMostColumns) return std::nullopt;
    column c;
    if (type >= 12) {
      const std::uint64_t size = (type - 12) / 2;
      if (size > values.size()) return std::nullopt;
      c.what = type % 2 == 0 ? column::kind::blob : column::kind::text;
      c.bytes = values.substr(0, static_cast<std::size_t>(size));
      values.remove_prefix(static_cast<std::size_t>(size));
    } else if (type == 8 || type == 9) {
      c.what = column::kind::integer;
      c.number = type == 9 ? 1 : 0;
    } else if (type >= 1 && type <= 6) {
      static constexpr std::size_t kSizes[] = {0, 1, 2, 3, 4, 6, 8};
      const std::size_t size = kSizes[type];
      if (size > values.size()) return std::nullopt;
      std::uint64_t bits = (static_cast<unsigned char>(values[0]) & 0x80u) != 0 ? ~std::uint64_t{0} : 0;
      for (std::size_t i = 0; i < size; ++i) bits = bits << 8 | static_cast<unsigned char>(values[i]);
      c.what = column::kind::integer;
      c.number = static_cast<std::int64_t>(bits);
      values.remove_prefix(size);
    } else if (type != 0) {
      return std::nullopt;  // a real number, or what no version of SQLite writes
    }
    out.push_back(std::move(c));
  }
  if (!values.empty()) return std::nullopt;
  return out;
}

bool interior(page_file::tree t) {
  return t == page_file::tree::interior_index || t == page_file::tree::interior_table;
}

}  // namespace

page_file::page_file(const std::string& path) : cache_(kCached) {
  file_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file_ < 0) throw storage_failed("cannot read " + path + ": " + std::strerror(errno));
  log_file_ = ::open((path + "-wal").c_str(), O_RDONLY | O_CLOEXEC);
  char header[kFileHeader] = {};
  const bool has_header = read_at(file_, 0, header, sizeof header) && std::memcmp(header, "SQLite format 3", 16) == 0;
  page_size_ = u16(header + 16) == 1 ? 65536 : u16(header + 16);
  reserved_ = static_cast<unsigned char>(header[20]);
  if (!has_header || !is_page_size(page_size_)) {
    // Of a file whose head is gone: as its log says, else as Leveret makes files.
    char log_header[kLogHeader] = {};
    const bool has_log = log_file_ >= 0 && read_at(log_file_, 0, log_header, sizeof log_header);
    page_size_ = has_log && is_page_size(u32(log_header + 8)) ? u32(log_header + 8) : kPageSize;
    reserved_ = 0;
  }
  if (reserved_ > 32) reserved_ = 0;
  struct stat about{};
  if (::fstat(file_, &about) == 0) {
    count_ = static_cast<page_number>((static_cast<std::uint64_t>(about.st_size) + page_size_ - 1) / page_size_);
  }
  if (log_file_ >= 0) read_log();
}

page_file::~page_file() {
  ::close(file_);
  if (log_file_ >= 0) ::close(log_file_);
}

bool page_file::read_at(int file, std::uint64_t offset, char* out, std::size_t size) const {
  while (size > 0) {
    const ssize_t got = ::pread(file, out, size, static_cast<off_t>(offset));
    if (got <= 0) {
      if (got < 0 && errno == EINTR) continue;
      return false;
    }
    out += got;
    offset += static_cast<std::uint64_t>(got);
    size -= static_cast<std::size_t>(got);
  }
  return true;
}

void page_file::read_log() {
  char header[kLogHeader];
  if (!read_at(log_file_, 0, header, sizeof header)) return;  // an empty log
  checksum sum;
  sum.big_endian = u32(header) == 0x377f0683;
  sum.add(header, 24);
  log_.header_damaged = (u32(header) & ~1u) != 0x377f0682 || u32(header + 8) != page_size_ ||
                        u32(header + 24) != sum.a || u32(header + 28) != sum.b;
  if (log_.header_damaged) return;
  std::string frame(kFrameHeader + page_size_, '\0');
  std::unordered_map<page_number, std::uint64_t> of_transaction;
  bool broken = false;
  std::size_t frames = 0;
  for (std::uint64_t at = kLogHeader; read_at(log_file_, at, frame.data(), frame.size()); at += frame.size()) {
    const char* p = frame.data();
    const bool ours = std::memcmp(p + 8, header + 16, 8) == 0;  // else of an earlier log, or damaged
    sum.add(p, 8);
    sum.add(p + kFrameHeader, page_size_);
    const bool good = ours && u32(p + 16) == sum.a && u32(p + 20) == sum.b;
    broken = broken || !good;
    // Each checksum goes on from the one before, which stands in its frame: so what follows a damaged frame can be told
    // from what a transaction left that was given up.
    sum.a = u32(p + 16);
    sum.b = u32(p + 20);
    if (!ours) continue;
    if (good) {
      of_transaction[u32(p)] = at + kFrameHeader;
      ++frames;
    } else {
      damaged_behind_[u32(p)] = at + kFrameHeader;
    }
    if (const page_number size = u32(p + 4); size != 0 && good) {
      (broken ? log_.behind : log_.committed) += frames;
      for (const auto& [n, offset] : of_transaction) {
        if (broken) {
          latest_behind_[n] = behind_.size();
          behind_.push_back(offset);
        } else {
          in_log_[n] = offset;
        }
      }
      of_transaction.clear();
      if (!broken) count_ = std::max(size, count_);
      frames = 0;
    }
  }
}

std::shared_ptr<const std::string> page_file::page(page_number n) {
  if (n == 0 || n > count_ + behind_.size()) return nullptr;
  cached& c = cache_[n % kCached];
  if (c.n == n) return c.content;
  std::string content(page_size_, '\0');
  bool got = false;
  if (n > count_) {
    got = read_at(log_file_, behind_[n - count_ - 1], content.data(), page_size_);
  } else if (const auto found = in_log_.find(n); found != in_log_.end()) {
    got = read_at(log_file_, found->second, content.data(), page_size_);
  } else {
    got = read_at(file_, std::uint64_t{n - 1} * page_size_, content.data(), page_size_);
  }
  c.n = n;
  c.content = got ? std::make_shared<const std::string>(std::move(content)) : nullptr;
  return c.content;
}

std::shared_ptr<const std::string> page_file::overflow_page(page_number n, bool of_behind) {
  if (of_behind) {
    const auto found = latest_behind_.find(n);
    const auto damaged = damaged_behind_.find(n);
    const bool readable = found != latest_behind_.end();
    // Rather no row than one with the end of another.
    if (damaged != damaged_behind_.end() && (!readable || damaged->second > behind_[found->second])) return nullptr;
    if (readable) return page(count_ + 1 + static_cast<page_number>(found->second));
  }
  return n > count_ ? nullptr : page(n);
}

std::optional<page_file::tree> page_file::kind_of(page_number n) {
  const auto p = page(n);
  if (!p) return std::nullopt;
  switch ((*p)[n == 1 ? kFileHeader : 0]) {
    case 2:
      return tree::interior_index;
    case 5:
      return tree::interior_table;
    case 10:
      return tree::leaf_index;
    case 13:
      return tree::leaf_table;
    default:
      return std::nullopt;
  }
}

std::uint16_t page_file::cells(page_number n) {
  const auto p = page(n);
  if (!p) return 0;
  const std::size_t head = n == 1 ? kFileHeader : 0;
  return static_cast<std::uint16_t>(std::min<std::size_t>(u16(p->data() + head + 3), page_size_ / 4));
}

std::optional<std::size_t> page_file::cell_start(const std::string& p, page_number n, std::uint16_t cell) const {
  const std::size_t head = n == 1 ? kFileHeader : 0;
  const bool inner = p[head] == 2 || p[head] == 5;
  const std::size_t pointer = head + (inner ? 12u : 8u) + std::size_t{2} * cell;
  if (pointer + 2 > page_size_) return std::nullopt;
  const std::size_t start = u16(p.data() + pointer);
  if (start <= pointer || start + 4 > usable()) return std::nullopt;
  return start;
}

std::vector<page_number> page_file::children(page_number n) {
  std::vector<page_number> out;
  const auto kind = kind_of(n);
  if (!kind || !interior(*kind)) return out;
  const auto p = page(n);
  for (std::uint16_t i = 0; i < cells(n); ++i) {
    const auto start = cell_start(*p, n, i);
    out.push_back(start ? u32(p->data() + *start) : 0);
  }
  out.push_back(u32(p->data() + (n == 1 ? kFileHeader : 0) + 8));
  return out;
}

std::optional<row> page_file::read(row_place at, const std::function<void(page_number)>& overflow) {
  const auto kind = kind_of(at.page);
  if (!kind || *kind == tree::interior_table) return std::nullopt;
  const auto p = page(at.page);
  const auto start = cell_start(*p, at.page, at.cell);
  if (!start) return std::nullopt;
  const bool of_table = *kind == tree::leaf_table;
  std::string_view rest = std::string_view(*p).substr(0, usable()).substr(*start);
  if (*kind == tree::interior_index) rest.remove_prefix(4);
  std::uint64_t size = 0;
  std::uint64_t rowid = 0;
  if (!take_varint(rest, size) || (of_table && !take_varint(rest, rowid))) return std::nullopt;
  if (size > kLargestPayload || size > std::uint64_t{count_} * page_size_) return std::nullopt;
  const std::uint64_t u = usable();
  const std::uint64_t most = of_table ? u - 35 : (u - 12) * 64 / 255 - 23;
  const std::uint64_t least = (u - 12) * 32 / 255 - 23;
  std::uint64_t local = size;
  if (size > most) {
    local = least + (size - least) % (u - 4);
    if (local > most) local = least;
  }
  if (local + (local < size ? 4 : 0) > rest.size()) return std::nullopt;
  std::string payload(rest.substr(0, static_cast<std::size_t>(local)));
  payload.reserve(static_cast<std::size_t>(size));
  page_number next = local < size ? u32(rest.data() + local) : 0;
  while (payload.size() < size) {
    // A chain that goes in circles ends with the payload's size.
    const auto more = overflow_page(next, at.page > count_);
    if (!more) return std::nullopt;
    if (overflow && next <= count_) overflow(next);
    payload.append(*more, 4, std::min<std::size_t>(static_cast<std::size_t>(size) - payload.size(), usable() - 4));
    next = u32(more->data());
  }
  if (local < size && next != 0) return std::nullopt;
  std::optional<row> out = decode(payload);
  if (!out || out->empty()) return std::nullopt;
  if (of_table) {
    // The rowid stands for the INTEGER PRIMARY KEY, whose own column is NULL.
    if (out->front().what != column::kind::null) {
      out->insert(out->begin(), column{});
    }
    out->front() = {column::kind::integer, static_cast<std::int64_t>(rowid), {}};
  }
  return out;
}

std::vector<page_number> page_file::free_pages(bool& whole) {
  std::vector<page_number> out;
  whole = false;
  const auto first = page(1);
  if (!first) return out;
  page_number trunk = u32(first->data() + 32);
  const page_number wanted = u32(first->data() + 36);
  while (trunk != 0) {
    const auto p = page(trunk);
    if (!p || out.size() > count_) return out;
    out.push_back(trunk);
    const std::uint32_t leaves = u32(p->data() + 4);
    if (leaves > usable() / 4 - 2) return out;
    for (std::uint32_t i = 0; i < leaves; ++i) out.push_back(u32(p->data() + 8 + 4 * std::size_t{i}));
    trunk = u32(p->data());
  }
  whole = out.size() == wanted;
  return out;
}

log_state look_at_log(const std::string& path) { return page_file(path).log(); }

}  // namespace leveret::core::sqlite
