/// Claims as text; and senders that are killed between the steps of a send: the key is not lost for its window, and no
/// second job comes of it.
#include <gtest/gtest.h>
#include <signal.h>

#include <string>
#include <vector>

#include "claim.hpp"
#include "cpp/support/folder.hpp"
#include "cpp/support/program.hpp"
#include "cpp/support/puppet.hpp"
#include "cpp/support/session.hpp"
#include "ids.hpp"

namespace leveret::core {
namespace {

using test::folder;
using test::make_message;
using test::puppet;
using test::session;
using test::subscription;
using testing_support::rabbitmq_node;
using testing_support::redis_server;

TEST(claim, is_read_as_it_was_written) {
  for (const held_until until : {held_until::window, held_until::start, held_until::end}) {
    const claim c{until, 1'767'225'600'000, "01936c7a-0000-7000-8000-000000000000/1", "3:add:two words \xe2\x82\xac "};
    const std::optional<claim> read = read_claim(claim_text(c));
    ASSERT_TRUE(read.has_value());
    EXPECT_EQ(read->until, c.until);
    EXPECT_EQ(read->expires, c.expires);
    EXPECT_EQ(read->job, c.job);
    EXPECT_EQ(read->key, c.key);
  }
}

TEST(claim, is_none_where_the_text_is_malformed) {
  for (const std::string text : {"", "end", "end 1", "end 1 job", "end 1 job ", "end x job key", "end 1x job key",
                                 "later 1 job key", " end 1 job key", "end  job key"}) {
    EXPECT_FALSE(read_claim(text).has_value()) << text;
  }
  EXPECT_FALSE(read_claim("end 1 job " + std::string(kMostClaimKey + 1, 'k')).has_value());
  EXPECT_TRUE(read_claim("end 1 job " + std::string(kMostClaimKey, 'k')).has_value());
}

TEST(claim, is_none_of_a_message_without_the_header) {
  message m = make_message("q", "1\n");
  EXPECT_FALSE(claim_of(m).has_value());
  m.headers = {{"traceparent", "end 1 job key"}};
  EXPECT_FALSE(claim_of(m).has_value());
}

// ---- killed senders ----

const std::string kLost = "01936c7a-0000-7000-8000-000000000000";

message claiming(session& s, const std::string& queue, const std::string& key) {
  message m = make_message(queue, "x\n");
  m.headers = {{kHeaderClaim, claim_text({held_until::end, s.loop().wall() + 86'400'000, m.id + "/1", key})}};
  return m;
}

limits impatient() {
  limits lim;
  lim.sending_lease = std::chrono::milliseconds(300);
  return lim;
}

/// A process that sends `kLost` with the key, and dies at the failpoint.
void send_and_die(const std::string& at, const std::string& url, const std::string& queue, const std::string& key) {
  puppet sender(at + ":KILL");
  sender.ask("open", url, "30000");
  sender.tell("publish_claim", queue, kLost, key);
  EXPECT_EQ(sender.wait_ended(), SIGKILL);
}

/// The ids of the messages in the queue, which are taken.
std::vector<std::string> taken(session& s, const std::string& queue, std::size_t count) {
  subscription c(s, queue);
  std::vector<std::string> ids;
  for (const delivery& d : c.next(count)) {
    ids.push_back(d.msg.id);
    EXPECT_EQ(s.settle(d).status, settle_status::settled);
  }
  EXPECT_EQ(s.queue(queue).ready, 0u);
  EXPECT_EQ(c.delivered(), count);
  return ids;
}

TEST(killed_sender, has_sent_nothing_before_sqlite_commits) {
  const folder f;
  session s(f.url());
  s.declare("q");
  send_and_die("before_commit", f.url(), "q", "3:add:k");
  const message second = claiming(s, "q", "3:add:k");
  EXPECT_EQ(s.publish(second).existing, "");
  EXPECT_EQ(taken(s, "q", 1), std::vector<std::string>{second.id});
}

TEST(killed_sender, has_sent_its_job_when_sqlite_has_committed) {
  const folder f;
  session s(f.url());
  s.declare("q");
  send_and_die("after_commit", f.url(), "q", "3:add:k");
  EXPECT_EQ(s.publish(claiming(s, "q", "3:add:k")).existing, kLost + "/1");
  EXPECT_EQ(taken(s, "q", 1), std::vector<std::string>{kLost});
}

class killed_sender_with_a_store : public testing::TestWithParam<const char*> {
 protected:
  [[nodiscard]] std::string url() const {
    const std::string store = GetParam() == std::string("redis") ? server().url() : files_.url("store.db");
    return rabbitmq_node::shared().url() + "?results=" + store;
  }
  static redis_server& server() {
    static redis_server one;
    return one;
  }

 private:
  const folder files_;
};

TEST_P(killed_sender_with_a_store, between_key_and_broker_leaves_its_job_to_the_next_sender) {
  session s(url(), impatient());
  const std::string queue = std::string("reserved-") + GetParam();
  s.declare(queue);
  send_and_die("after_reserve", url(), queue, "3:add:" + queue);
  const publish_outcome outcome = s.publish(claiming(s, queue, "3:add:" + queue));
  EXPECT_EQ(outcome.status, publish_status::accepted) << outcome.why.text;
  EXPECT_EQ(outcome.existing, kLost + "/1");
  EXPECT_EQ(s.publish(claiming(s, queue, "3:add:" + queue)).existing, kLost + "/1");
  EXPECT_EQ(taken(s, queue, 1), std::vector<std::string>{kLost}) << "once, and under the id that the key names";
}

TEST_P(killed_sender_with_a_store, between_broker_and_note_leaves_one_job_that_may_come_twice) {
  session s(url(), impatient());
  const std::string queue = std::string("sent-") + GetParam();
  s.declare(queue);
  send_and_die("before_mark", url(), queue, "3:add:" + queue);
  EXPECT_EQ(s.publish(claiming(s, queue, "3:add:" + queue)).existing, kLost + "/1");
  EXPECT_EQ(s.publish(claiming(s, queue, "3:add:" + queue)).existing, kLost + "/1");
  EXPECT_EQ(taken(s, queue, 2), (std::vector<std::string>{kLost, kLost})) << "never two jobs";
}

INSTANTIATE_TEST_SUITE_P(stores, killed_sender_with_a_store, testing::Values("sqlite", "redis"),
                         [](const testing::TestParamInfo<const char*>& of) { return std::string(of.param); });

}  // namespace
}  // namespace leveret::core

int main(int argc, char** argv) {
  if (const auto code = leveret::test::run_puppet(argc, argv)) return *code;
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
