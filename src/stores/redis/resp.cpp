#include "resp.hpp"

#include <hiredis/hiredis.h>

#include <new>

namespace leveret::core::redis {
namespace {

reply converted(const redisReply& from) {
  reply out;
  switch (from.type) {
    case REDIS_REPLY_STRING:
    case REDIS_REPLY_STATUS:
      out.what = reply::kind::text;
      out.text.assign(from.str, static_cast<std::size_t>(from.len));
      break;
    case REDIS_REPLY_ERROR:
      out.what = reply::kind::error;
      out.text.assign(from.str, static_cast<std::size_t>(from.len));
      break;
    case REDIS_REPLY_INTEGER:
      out.what = reply::kind::number;
      out.number = from.integer;
      break;
    case REDIS_REPLY_ARRAY:
      out.what = reply::kind::list;
      out.items.reserve(from.elements);
      for (std::size_t i = 0; i < from.elements; ++i) out.items.push_back(converted(*from.element[i]));
      break;
    default:
      break;
  }
  return out;
}

struct reply_freed {
  void operator()(void* found) const noexcept { ::freeReplyObject(found); }
};

}  // namespace

void append_command(std::string& out, const command& words) {
  std::vector<const char*> texts;
  std::vector<std::size_t> sizes;
  for (const std::string_view word : words) {
    texts.push_back(word.data());
    sizes.push_back(word.size());
  }
  char* encoded = nullptr;
  const auto size = ::redisFormatCommandArgv(&encoded, static_cast<int>(words.size()), texts.data(), sizes.data());
  if (size < 0) throw std::bad_alloc();
  const std::unique_ptr<char, decltype(&::redisFreeCommand)> owned(encoded, &::redisFreeCommand);
  out.append(encoded, static_cast<std::size_t>(size));
}

void reply_reader::freed::operator()(redisReader* reader) const noexcept { ::redisReaderFree(reader); }

reply_reader::reply_reader() : reader_(::redisReaderCreate()) {
  if (!reader_) throw std::bad_alloc();
}

void reply_reader::feed(const char* bytes, std::size_t size) {
  // Fails for want of memory, or after a malformed reply, which `next` tells.
  if (::redisReaderFeed(reader_.get(), bytes, size) != REDIS_OK && reader_->err == REDIS_ERR_OOM)
    throw std::bad_alloc();
}

reply_reader::got reply_reader::next(reply& out) {
  void* found = nullptr;
  if (::redisReaderGetReply(reader_.get(), &found) != REDIS_OK) {
    if (reader_->err == REDIS_ERR_OOM) throw std::bad_alloc();
    return got::malformed;
  }
  if (found == nullptr) return got::nothing_yet;
  const std::unique_ptr<void, reply_freed> owned(found);
  out = converted(*static_cast<const redisReply*>(found));
  return got::reply;
}

}  // namespace leveret::core::redis
