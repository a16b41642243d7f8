/// Values: the reading half of the C ABI, on the tape of a parsed line. A value without a document (`leveret_value{}`)
/// reads as null.
#include "codec/values.hpp"

#include "codec.hpp"
#include "codec/scanner.hpp"

namespace leveret::core {

namespace dom = simdjson::dom;

namespace {

static_assert(kMaxLineBytes < (1u << 24), "the tape counts entries in 24 bits");

/// `[[],{}]`, parsed once and never freed: threads may still read from it while the process ends.
struct empties {
  dom::parser parser;
  leveret_value array{};
  leveret_value object{};

  empties() {
    const std::string text = "[[],{}]" + std::string(simdjson::SIMDJSON_PADDING, '\0');
    if (parser.parse(text.data(), 7, false).error() != simdjson::SUCCESS) return;
    array = to_value(parser.doc, tape::kRoot + 1);
    object = to_value(parser.doc, tape(parser.doc).after(tape::kRoot + 1));
  }
};
const empties& the_empties() {
  static const empties* const instance = new empties;
  return *instance;
}

tape tape_of(const void* document) noexcept { return tape(*static_cast<const dom::document*>(document)); }
char type_of(leveret_value value) noexcept {
  return value.document == nullptr ? 'n' : tape_of(value.document).type(value.index);
}

/// The words of a leveret_iterator. Read and written one by one: copying all four at once waits for the store buffer,
/// 10 ns an element.
enum word : std::size_t {
  kDocument,
  kAt,
  kEnd,  ///< index of the closing bracket
  kIsObject
};
static_assert(sizeof(std::size_t) == sizeof(const void*));

const void* document_of(const leveret_iterator& iterator) noexcept {
  const void* document;
  std::memcpy(static_cast<void*>(&document), &iterator.opaque[kDocument], sizeof document);
  return document;
}

leveret_kind kind_of(leveret_value value) {
  switch (type_of(value)) {
    case '[':
      return LEVERET_ARRAY;
    case '{':
      return LEVERET_OBJECT;
    case 'l':
      return LEVERET_INTEGER;
    case 'u':
      return LEVERET_UNSIGNED;
    case 'd':
      return LEVERET_DOUBLE;
    case '"':
      return LEVERET_STRING;
    case 't':
    case 'f':
      return LEVERET_BOOLEAN;
    default:
      return LEVERET_NULL;
  }
}

int get_integer(leveret_value value, std::int64_t* out) {
  if (type_of(value) != 'l') return 0;
  *out = tape_of(value.document).integer(value.index);
  return 1;
}

int get_unsigned(leveret_value value, std::uint64_t* out) {
  const char type = type_of(value);
  if (type != 'u' && type != 'l') return 0;
  const tape nodes = tape_of(value.document);
  if (type == 'l' && nodes.integer(value.index) < 0) return 0;
  *out = nodes.uinteger(value.index);
  return 1;
}

int get_double(leveret_value value, double* out) {
  switch (type_of(value)) {
    case 'd':
      *out = tape_of(value.document).real(value.index);
      return 1;
    case 'l':
      *out = static_cast<double>(tape_of(value.document).integer(value.index));
      return 1;
    case 'u':
      *out = static_cast<double>(tape_of(value.document).uinteger(value.index));
      return 1;
    default:
      return 0;
  }
}

int get_boolean(leveret_value value, int* out) {
  const char type = type_of(value);
  if (type != 't' && type != 'f') return 0;
  *out = type == 't' ? 1 : 0;
  return 1;
}

int get_string(leveret_value value, leveret_string* out) {
  if (type_of(value) != '"') return 0;
  const std::string_view text = tape_of(value.document).string(value.index);
  *out = {text.data(), text.size()};
  return 1;
}

std::size_t size_of(leveret_value value) {
  const char type = type_of(value);
  return type == '[' || type == '{' ? tape_of(value.document).count(value.index) : 0;
}

void begin(leveret_value value, leveret_iterator* out) {
  const char type = type_of(value);
  std::memcpy(&out->opaque[kDocument], static_cast<const void*>(&value.document), sizeof value.document);
  out->opaque[kAt] = 0;
  out->opaque[kEnd] = 0;
  out->opaque[kIsObject] = type == '{' ? 1 : 0;
  if (type == '[' || type == '{') {
    out->opaque[kAt] = value.index + 1;
    out->opaque[kEnd] = tape_of(value.document).behind(value.index) - 1;
  }
}

int next(leveret_iterator* iterator, leveret_string* key, leveret_value* out) {
  std::size_t at = iterator->opaque[kAt];
  if (at >= iterator->opaque[kEnd]) return 0;
  const void* const document = document_of(*iterator);
  const tape nodes = tape_of(document);
  if (iterator->opaque[kIsObject] != 0) {
    if (key != nullptr) {
      const std::string_view name = nodes.string(at);
      *key = {name.data(), name.size()};
    }
    ++at;
  } else if (key != nullptr) {
    *key = {nullptr, 0};
  }
  *out = {document, at};
  iterator->opaque[kAt] = nodes.after(at);
  return 1;
}

/// Recursive; a line's depth bounds it. Ends behind the value.
std::size_t append_value(std::string& out, const tape& nodes, std::size_t at) {
  const char type = nodes.type(at);
  switch (type) {
    case '[':
    case '{': {
      const std::size_t end = nodes.behind(at) - 1;
      out.push_back(type);
      for (std::size_t child = at + 1; child < end;) {
        if (child != at + 1) out.push_back(',');
        if (type == '{') {
          json::append_string(out, nodes.string(child++));
          out.push_back(':');
        }
        child = append_value(out, nodes, child);
      }
      out.push_back(type == '[' ? ']' : '}');
      break;
    }
    default:
      append_scalar(out, nodes, at);
  }
  return nodes.after(at);
}

}  // namespace

void append_scalar(std::string& out, const tape& nodes, std::size_t at) {
  switch (nodes.type(at)) {
    case 'l':
      json::append_integer(out, nodes.integer(at));
      break;
    case 'u':
      json::append_unsigned(out, nodes.uinteger(at));
      break;
    case 'd':
      json::append_double(out, nodes.real(at));
      break;
    case '"':
      json::append_string(out, nodes.string(at));
      break;
    case 't':
      out.append("true");
      break;
    case 'f':
      out.append("false");
      break;
    default:
      out.append("null");
  }
}

leveret_value empty_array() { return the_empties().array; }
leveret_value empty_object() { return the_empties().object; }

std::size_t read_arguments(const decoded_job& job, leveret_value* values, std::size_t most,
                           std::size_t* keywords) noexcept {
  if (job.foreign) return LEVERET_FOREIGN;
  *keywords = tape_of(job.kwargs.document).count(job.kwargs.index);
  const tape nodes = tape_of(job.args.document);
  const std::size_t count = nodes.count(job.args.index);
  std::size_t at = job.args.index + 1;
  for (std::size_t i = 0; i < count && i < most; ++i) {
    values[i] = {job.args.document, at};
    at = nodes.after(at);
  }
  return count;
}

void set_value_functions(leveret_host& host) noexcept {
  host.kind = kind_of;
  host.get_integer = get_integer;
  host.get_unsigned = get_unsigned;
  host.get_double = get_double;
  host.get_boolean = get_boolean;
  host.get_string = get_string;
  host.size_of = size_of;
  host.begin = begin;
  host.next = next;
}

std::string to_json(leveret_value value) {
  std::string out;
  if (value.document == nullptr) {
    out = "null";
  } else {
    append_value(out, tape_of(value.document), value.index);
  }
  return out;
}

}  // namespace leveret::core
