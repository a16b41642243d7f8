// Signed messages: keys, what is signed, and what a worker makes of a message that is not signed well.
#include "signing.hpp"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <functional>
#include <leveret/producer.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpp/support/folder.hpp"
#include "cpp/support/session.hpp"
#include "redelivery.hpp"

namespace leveret::core {
namespace {

using test::folder;
using test::session;
using test::subscription;

const std::string kOld = "old:0123456789abcdef0123456789abcdef";
const std::string kNew = "new:fedcba9876543210fedcba9876543210";

message sample() {
  message m;
  m.id = "01936c7a-0000-7000-8000-000000000000";
  m.queue = "mail";
  m.reply = "leveret.reply.1";
  m.data = body(std::string_view("{\"task\":\"t\",\"retry_count\":0}\n"));
  m.jobs = 1;
  m.headers = {{kHeaderUnknownSince, "1767225600000"}, {"traceparent", "00-1"}};
  return m;
}

std::string reason(const signing_keys& keys, const message& m) {
  const signing_keys::verdict found = keys.verify(m);
  EXPECT_EQ(found.reason == nullptr, found.text.empty());
  return found.reason == nullptr ? "good" : found.reason;
}

/// The variable while it lives.
class environment {
 public:
  explicit environment(const std::string& keys) { ::setenv(kSigningKeysVariable, keys.c_str(), 1); }
  ~environment() { ::unsetenv(kSigningKeysVariable); }
  environment(const environment&) = delete;
  environment& operator=(const environment&) = delete;
};

std::string refusal(const std::string& keys) {
  try {
    const signing_keys made{keys};
  } catch (const std::invalid_argument& wrong) {
    return wrong.what();
  }
  return "accepted";
}

TEST(signing, a_message_signed_by_any_of_the_keys_is_good) {
  const signing_keys before{kOld};
  const signing_keys between{kNew + " " + kOld};
  const signing_keys after{kNew};
  message m = sample();
  EXPECT_EQ(reason(between, m), "unsigned");
  before.sign(m);
  EXPECT_EQ(reason(before, m), "good");
  EXPECT_EQ(reason(between, m), "good");
  EXPECT_EQ(reason(after, m), "bad_signature");
  between.sign(m);  // in place of the other
  EXPECT_EQ(reason(after, m), "good");
  EXPECT_EQ(reason(before, m), "bad_signature");
  EXPECT_EQ(m.headers.size(), 3u);
}

TEST(signing, unsigned_messages_are_taken_where_the_keys_say_so_and_bad_ones_never) {
  const signing_keys begin{kNew + " unsigned"};
  message m = sample();
  EXPECT_EQ(reason(begin, m), "good");
  signing_keys{kOld}.sign(m);
  EXPECT_EQ(reason(begin, m), "bad_signature");
  begin.sign(m);
  EXPECT_EQ(reason(signing_keys{kNew}, m), "good");
  EXPECT_NE(refusal("unsigned").find("it names no key"), std::string::npos);
}

TEST(signing, whatever_is_altered_is_seen) {
  const signing_keys keys{kNew};
  const std::vector<std::function<void(message&)>> changes = {
      [](message& m) { m.id.back() = '1'; },
      [](message& m) { m.queue = "other"; },
      [](message& m) { m.reply.clear(); },
      [](message& m) { m.reply += "2"; },
      [](message& m) { m.data = body(std::string_view("{\"task\":\"u\",\"retry_count\":0}\n")); },
      [](message& m) { m.data = body(m.data.view().substr(0, m.data.size() - 1)); },
      [](message& m) { m.headers[0].value = "1"; },
      [](message& m) { m.headers.erase(m.headers.begin()); },
      [](message& m) { m.headers.push_back({kHeaderSuspect, kSuspectSingle}); },
      [](message& m) { m.headers.push_back({kHeaderCrashes, "3"}); },
      [](message& m) { m.headers.back().value.back() ^= 1; },
      [](message& m) { m.headers.back().value.pop_back(); },
      [](message& m) { m.headers.back().value += "0"; },
      [](message& m) { m.headers.back().value = "new"; },
      [](message& m) { m.headers.back().value = ":"; },
      // What stands at the border of two fields cannot pass from one to the other.
      [](message& m) {
        m.reply.insert(m.reply.begin(), m.queue.back());
        m.queue.pop_back();
      },
  };
  for (std::size_t i = 0; i < changes.size(); ++i) {
    message m = sample();
    keys.sign(m);
    ASSERT_EQ(reason(keys, m), "good");
    changes[i](m);
    EXPECT_EQ(reason(keys, m), "bad_signature") << "change " << i;
  }
}

TEST(signing, what_a_broker_may_change_is_not_signed) {
  const signing_keys keys{kNew};
  message m = sample();
  keys.sign(m);
  m.queue += kSuspectsSuffix;
  m.headers[1].value = "00-2";
  m.headers.push_back({"x-received-from", "federation"});
  m.due = 7;
  m.jobs = 0;
  EXPECT_EQ(reason(keys, m), "good");
}

TEST(signing, senseless_keys_are_refused_and_no_secret_is_told) {
  const std::string secret = "geheimgeheimgeheimgeheimgeheim12";
  for (const std::string& keys :
       {secret, ":" + secret, "a b:" + secret, "a:" + secret + " a:" + secret, "a:" + secret.substr(1),
        std::string(","), "\xff:" + secret, "a:" + secret + " " + secret, std::string(65, 'a') + ":" + secret}) {
    const std::string said = refusal(keys);
    EXPECT_EQ(said.find("cannot use LEVERET_SIGNING_KEYS: "), 0u) << said;
    EXPECT_EQ(said.find("geheim"), std::string::npos) << said;
  }
  EXPECT_EQ(refusal("a:" + secret + ",b:" + secret + "\n"), "accepted");
}

TEST(signing, keys_come_from_the_variable_or_the_file_it_names) {
  const folder f;
  EXPECT_EQ(signing_keys_of_environment(), nullptr);
  {
    const environment set("");
    EXPECT_EQ(signing_keys_of_environment(), nullptr);
  }
  std::ofstream(f.file("keys")) << kNew << "\n" << kOld << "\n";
  const environment set("@" + f.file("keys"));
  message m = sample();
  signing_keys_of_environment()->sign(m);
  EXPECT_EQ(reason(signing_keys{kNew}, m), "good");
  const environment none("@" + f.file("none"));
  try {
    (void)signing_keys_of_environment();
    ADD_FAILURE() << "accepted";
  } catch (const std::invalid_argument& wrong) {
    EXPECT_NE(std::string(wrong.what()).find(f.file("none") + " cannot be read"), std::string::npos) << wrong.what();
  }
}

TEST(signing, a_producer_in_cpp_signs) {
  const folder f;
  {
    const environment set(kNew);
    leveret::producer to(f.url());
    to.send("t", 1);
  }
  session s(f.url());
  subscription c(s, "native");
  EXPECT_EQ(reason(signing_keys{kNew}, c.next().msg), "good");
}

TEST(signing, a_transport_marks_what_is_not_signed_well) {
  const folder f;
  {
    session plain(f.url());
    plain.declare("mail");
    message forged = sample();
    plain.must_publish({forged});
  }
  const environment set(kNew);
  thread_loop loop;
  const auto t = open_transport(f.url(), loop, {});
  std::promise<delivery> came;
  subscriber events;
  events.on_delivery = [&came](delivery d) { came.set_value(std::move(d)); };
  (void)t->subscribe("mail", {}, std::move(events));
  const delivery d = came.get_future().get();
  ASSERT_TRUE(d.refused);
  EXPECT_EQ(d.refused->reason, "unsigned");
  t->close(loop.now() + std::chrono::seconds(60));
}

}  // namespace
}  // namespace leveret::core
