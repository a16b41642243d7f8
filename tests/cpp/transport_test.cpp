// Names and urls, as far as they are the same for all transports.
#include "transport.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <stdexcept>
#include <string>

namespace leveret::core {
namespace {

std::string refusal_of(const std::string& url) {
  try {
    return "accepted: " + display_url(url);
  } catch (const std::invalid_argument& e) {
    return e.what();
  }
}

TEST(display_url, never_shows_a_password) {
  EXPECT_EQ(display_url("amqp://guest:canary@localhost:5672/"), "amqp://guest@localhost:5672/");
  EXPECT_EQ(display_url("amqps://guest:canary@host/vhost?heartbeat=10"), "amqps://guest@host/vhost?heartbeat=10");
  EXPECT_EQ(display_url("amqp://guest:@host"), "amqp://guest@host");
  EXPECT_EQ(display_url("amqp://guest@host"), "amqp://guest@host");
  EXPECT_EQ(display_url("amqp://host:5672/%2f"), "amqp://host:5672/%2f");
  // Passwords that somebody forgot to escape.
  for (const char* password : {"canary@canary", "canary/canary", "canary?canary", "canary:canary", "ca@nary/canary"}) {
    EXPECT_EQ(display_url("amqp://guest:" + std::string(password) + "@host/v"), "amqp://guest@host/v") << password;
  }
}

TEST(display_url, shows_the_absolute_path_of_a_file) {
  const std::string here = std::filesystem::current_path().string();
  EXPECT_EQ(display_url("sqlite:///leveret.db"), "sqlite:///" + here + "/leveret.db");
  EXPECT_EQ(display_url("sqlite:///../x/./leveret.db"),
            "sqlite:///" + (std::filesystem::current_path().parent_path() / "x/leveret.db").string());
  EXPECT_EQ(display_url("sqlite:////var/lib/leveret.db"), "sqlite:////var/lib/leveret.db");
  EXPECT_EQ(display_url("sqlite:////var/lib/leveret.db?a=b"), "sqlite:////var/lib/leveret.db?a=b");
}

TEST(display_url, shows_memory_as_it_is) {
  EXPECT_EQ(display_url("memory://"), "memory://");
  EXPECT_EQ(display_url("memory://demo"), "memory://demo");
}

TEST(display_url, refuses_what_is_no_url_and_says_what_would_be) {
  for (const char* url : {"", "leveret.db", "://host", "amqp:guest:canary@host"}) {
    const std::string why = refusal_of(url);
    EXPECT_NE(why.find("no scheme"), std::string::npos) << why;
    EXPECT_NE(why.find("sqlite:///"), std::string::npos) << why;
    EXPECT_EQ(why.find("canary"), std::string::npos) << why;
  }
  const std::string why = refusal_of("http://user:canary@host");
  EXPECT_NE(why.find("unknown scheme \"http\"; the known ones are memory, sqlite, amqp, amqps"), std::string::npos)
      << why;
  EXPECT_EQ(why.find("canary"), std::string::npos) << why;
  for (const char* url : {"sqlite://", "sqlite:///", "sqlite://leveret.db", "sqlite:///?x=1"}) {
    EXPECT_NE(refusal_of(url).find("sqlite:////absolute/path"), std::string::npos) << refusal_of(url);
  }
}

TEST(check_queue_name, accepts_names) {
  for (const std::string& name : {std::string("default"), std::string("a"), std::string("A-z_0.9:x"),
                                  std::string(128, 'q'), std::string("dead"), std::string("x.dead.y")}) {
    EXPECT_NO_THROW(check_queue_name(name)) << name;
  }
}

TEST(check_queue_name, refuses_others_and_says_why) {
  const auto why = [](const std::string& name) {
    try {
      check_queue_name(name);
    } catch (const std::invalid_argument& e) {
      return std::string(e.what());
    }
    return std::string("accepted");
  };
  EXPECT_EQ(why(""), "\"\" is no queue name: it is empty; give 1 to 128 letters, digits, '.', '_', '-', ':'");
  EXPECT_NE(why(std::string(129, 'q')).find("it has 129 bytes, at most 128 are allowed"), std::string::npos);
  EXPECT_NE(why("a b").find("byte 2 is not allowed"), std::string::npos);
  EXPECT_NE(why("a/b").find("byte 2"), std::string::npos);
  EXPECT_NE(why("b\xc3\xa4r").find("byte 2"), std::string::npos);
  EXPECT_NE(why(std::string("a\0", 2)).find("\"a\\x00\" is no queue name: byte 2"), std::string::npos);
  EXPECT_NE(why("work.dead").find("'.dead' are Leveret's own"), std::string::npos);
  EXPECT_NE(why("work.suspects").find("'.suspects' are Leveret's own"), std::string::npos);
}

}  // namespace
}  // namespace leveret::core
