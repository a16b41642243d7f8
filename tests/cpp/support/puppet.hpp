/// Another process with a transport, which does as it is told and to which faults can be done. It is this test program,
/// executed again (a forked child must not touch what its parent opened): the program's main calls `run_puppet` first.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <optional>
#include <string>

namespace leveret::test {

/// The exit code, if this process was started as a puppet.
[[nodiscard]] std::optional<int> run_puppet(int argc, char** argv);

class puppet {
 public:
  /// Starts it, with LEVERET_FAULT_POINT as given (faults.hpp).
  explicit puppet(const std::string& fault_point = {});
  /// kill -9, if it still lives.
  ~puppet();
  puppet(const puppet&) = delete;
  puppet& operator=(const puppet&) = delete;

  /// Does a command and gives its one-line answer: `ask("open", url, "1000")`. Throws std::runtime_error when it
  /// answers with an error, or not at all.
  ///
  ///   open URL LEASE_MS            declare QUEUE
  ///   publish QUEUE COUNT SIZE     statuses: "accepted accepted", bodies "0\n" … or SIZE bytes each
  ///   publish_id QUEUE ID          status, "refused: why"
  ///   publish_claim QUEUE ID KEY   status; with a claim of the key until the job's end
  ///   subscribe QUEUE MESSAGES [BYTES], unsubscribe
  ///   take COUNT                   waits; ids of all taken so far
  ///   settle REPLY                 all taken; statuses; with a result "late" if REPLY is not "-"
  ///   publish_and_settle QUEUE COUNT SIZE     both at once; the first message's status and the settles'
  ///   lost COUNT                   waits; "ok"
  ///   commit_for QUEUE MS          publishes one by one; how many
  ///   fork                         goes on as its own child; the parent ends
  ///   drop_to USER_ID              becomes another user
  ///   own_mounts                   mounts of its own from here on
  ///   tmpfs FOLDER BYTES           bind FILE: mounts
  ///   remount FOLDER read-only|writable    a tmpfs
  ///   publish_until_refused QUEUE SIZE    "COUNT why"
  ///   fill PATH BYTES, remove PATH, close, end (closes all files too)
  template <class... T>
  std::string ask(const T&... words) {
    tell(words...);
    return answer();
  }
  /// As `ask`, without waiting: the answer comes by `answer`.
  template <class... T>
  void tell(const T&... words) {
    std::string line;
    ((line += line.empty() ? std::string(words) : "\t" + std::string(words)), ...);
    send(line);
  }
  std::string answer();

  void signal(int number);
  /// Waits until it stopped itself or was stopped.
  void wait_stopped();
  /// Waits until it ended; its signal, or 0.
  int wait_ended();
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  void send(const std::string& line);

  pid_t pid_ = 0;
  int to_ = -1;
  int from_ = -1;
  std::string unread_;
};

}  // namespace leveret::test
