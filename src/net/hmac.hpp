/// SHA-256 (FIPS 180-4) and HMAC-SHA-256 (RFC 2104), by OpenSSL.
#pragma once

#include <array>
#include <cstddef>
#include <string_view>

namespace leveret::core::net {

using digest = std::array<unsigned char, 32>;

/// Any thread. Throws unsupported where this machine's OpenSSL has none.
[[nodiscard]] digest sha256(std::string_view text);

/// Of `count` parts, one after the other. Any thread. Throws unsupported where this machine's OpenSSL has none.
[[nodiscard]] digest hmac_sha256(std::string_view key, const std::string_view* parts, std::size_t count);

/// Whether two texts of one size are the same; takes as long wherever they differ.
[[nodiscard]] bool same_text(std::string_view a, std::string_view b) noexcept;

}  // namespace leveret::core::net
