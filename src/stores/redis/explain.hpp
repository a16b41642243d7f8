/// What a server's refusal means and what helps.
#pragma once

#include <string>

#include "url.hpp"

namespace leveret::core::redis {

/// "CODE and words" of an error reply to one of our commands, with its cause and remedy.
[[nodiscard]] std::string explained(const std::string& error);
/// Of an error reply to AUTH. Never repeats the password, which some servers do.
[[nodiscard]] std::string login_refused(const std::string& error, const endpoint& where);
/// Of an error reply to SELECT.
[[nodiscard]] std::string database_refused(const std::string& error, const endpoint& where);

}  // namespace leveret::core::redis
