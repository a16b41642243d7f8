/// The C ABI of Leveret itself (leveret/library.h): sending jobs and being a worker, for C++ programs and for plugins.
/// Exceptions end here; the caller gets a number of leveret::errc and asks for the text.
#include <leveret/library.h>

#include <exception>
#include <leveret/error.hpp>
#include <leveret/version.hpp>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "abi_text.hpp"
#include "call_frame.hpp"
#include "client.hpp"
#include "codec.hpp"
#include "default_url.hpp"
#include "ids.hpp"
#include "once_publisher.hpp"
#include "ordered_publisher.hpp"
#include "plugin.hpp"
#include "send_settings.hpp"
#include "worker_command.hpp"

struct leveret_producer {
  leveret::core::client client;
  explicit leveret_producer(const std::string& url) : client(url, options()) {}

  static leveret::core::client_options options() {
    leveret::core::client_options o;
    o.takes_results = false;  // the ABI sends only: results are kept for others
    return o;
  }
};

struct leveret_batch {
  leveret::core::send_settings how;
  leveret::core::line_codec codec{};
  std::string line{};
  // One of these.
  std::unique_ptr<leveret::core::batch_publisher> packed{};
  std::unique_ptr<leveret::core::ordered_batch> ordered{};
  std::unique_ptr<leveret::core::once_batch> once{};

  // What became of it, once it is finished; of `packed` it is asked there.
  std::vector<leveret::core::published> messages{};
  std::vector<leveret::core::ordered_batch::place> places{};
  std::uint64_t behind = 0;
};

namespace leveret::core {

namespace {

thread_local std::string last_error_text;

/// Runs `f`; 0, or the number of what it threw.
template <class F>
int guarded(F&& f) noexcept {
  try {
    f();
    return 0;
  } catch (const error& thrown) {
    last_error_text = thrown.what();
    return static_cast<int>(thrown.code());
  } catch (const std::invalid_argument& thrown) {
    last_error_text = thrown.what();
    return static_cast<int>(errc::invalid_argument);
  } catch (const std::exception& thrown) {
    last_error_text = thrown.what();
    return static_cast<int>(errc::storage);
  } catch (...) {
    last_error_text = "unknown exception";
    return static_cast<int>(errc::storage);
  }
}

int open(leveret_string url, leveret_producer** out) {
  return guarded([&] {
    const std::string said(view(url));
    *out = new leveret_producer(said.empty() ? default_url() : said);
  });
}

void close(leveret_producer* producer) {
  if (producer == nullptr) return;
  (void)guarded([&] { producer->client.close(); });
  delete producer;
}

int send(leveret_producer* producer, const leveret_send_options* options, leveret_string args, leveret_string kwargs,
         leveret_string* job_id) {
  static thread_local std::string id;
  return guarded([&] {
    static thread_local line_codec codec;
    const send_settings how(*options);
    std::string line;
    how.append_line(line, view(args), view(kwargs), codec);
    const sent_job sent = producer->client.send(how.place({}, line, codec), {}, line);
    id = sent.existing.empty() ? make_job_id(sent.message.id, sent.line) : sent.existing;
    *job_id = string_of(id);
  });
}

int begin_batch(leveret_producer* producer, const leveret_send_options* options, leveret_batch** out) {
  return guarded([&] {
    auto made = std::make_unique<leveret_batch>(leveret_batch{send_settings(*options)});
    made->how.check_many();
    if (made->how.claims()) {
      made->once = std::make_unique<once_batch>(producer->client);
    } else if (made->how.ordered()) {
      made->ordered = producer->client.start_ordered_batch(made->how.to());
    } else {
      made->packed = producer->client.start_batch(made->how.to());
    }
    *out = made.release();
  });
}

int add_keyed(leveret_batch* batch, leveret_string key, leveret_string args, leveret_string kwargs) {
  return guarded([&] {
    if (key.data != nullptr) batch->how.check_takes_key();
    batch->line.clear();
    batch->how.append_line(batch->line, view(args), view(kwargs), batch->codec);
    if (batch->once) {
      batch->once->add(batch->how.place(key, batch->line, batch->codec), batch->line);
    } else if (batch->ordered) {
      batch->ordered->add(batch->how.shard(key), batch->line);
    } else {
      batch->packed->add(batch->line);
    }
  });
}

int add(leveret_batch* batch, leveret_string args, leveret_string kwargs) { return add_keyed(batch, {}, args, kwargs); }

/// What was accepted, of a batch whose jobs do not wait for each other and of which nothing is on its way.
void note_accepted(leveret_batch& batch) {
  if (batch.once) {
    once_batch::result all = batch.once->accepted();
    batch.messages = std::move(all.messages);
    batch.behind = all.accepted_behind;
  } else if (batch.ordered) {
    ordered_batch::result all = batch.ordered->accepted();
    batch.messages = std::move(all.messages);
    batch.places = std::move(all.jobs);
    batch.behind = all.accepted_behind;
  }
}

int finish(leveret_batch* batch) {
  return guarded([&] {
    const auto finished = [batch](auto& publisher) {
      try {
        publisher.finish();
      } catch (...) {
        note_accepted(*batch);
        throw;
      }
      note_accepted(*batch);
    };
    if (batch->once) return finished(*batch->once);
    if (batch->ordered) return finished(*batch->ordered);
    batch->packed->finish();
  });
}

int accepted(leveret_batch* batch, std::size_t index, leveret_string* message_id, std::uint32_t* jobs) {
  const std::vector<published>& all = batch->packed ? batch->packed->accepted() : batch->messages;
  if (index >= all.size()) return 0;
  *message_id = string_of(all[index].id);
  *jobs = all[index].jobs;
  return 1;
}

int place(leveret_batch* batch, std::size_t index, std::size_t* message, std::uint32_t* line) {
  if (index >= batch->places.size()) return 0;
  *message = batch->places[index].message;
  *line = batch->places[index].line;
  return 1;
}

leveret_call* new_value() { return new (std::nothrow) leveret_call; }

leveret_library make_library() noexcept {
  leveret_library made{};
  made.abi_version = LEVERET_ABI_VERSION;
  made.size = sizeof(leveret_library);
  made.version = LEVERET_VERSION;
  made.host = [] { return &host_functions(); };
  made.last_error = [] { return string_of(last_error_text); };
  made.new_value = &new_value;
  made.clear_value = [](leveret_call* value) { value->reset(); };
  made.value_text = [](leveret_call* value) { return string_of(value->result.text()); };
  made.delete_value = [](leveret_call* value) { delete value; };
  made.run_worker = &run_worker_main;
  made.open = &open;
  made.close = &close;
  made.send = &send;
  made.begin_batch = &begin_batch;
  made.add = &add;
  made.finish = &finish;
  made.accepted = &accepted;
  made.end_batch = [](leveret_batch* batch) { delete batch; };
  made.add_keyed = &add_keyed;
  made.place = &place;
  made.accepted_behind = [](leveret_batch* batch) { return batch->behind; };
  return made;
}

}  // namespace

}  // namespace leveret::core

const leveret_library* leveret_get_library(uint32_t abi_version) {
  static const leveret_library library = leveret::core::make_library();
  return abi_version == LEVERET_ABI_VERSION ? &library : nullptr;
}
