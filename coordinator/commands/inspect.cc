// `chorale inspect`: what a checkpoint holds, as it is stored; no model is built and no weight is read.
#include <algorithm>
#include <cstdint>
#include <iostream>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include <fmt/format.h>
#include <cxxopts.hpp>
#include <nlohmann/json.hpp>

#include "comm/base/error.h"
#include "coordinator/commands/commands.h"
#include "parallel/checkpoint/checkpoint.h"
#include "parallel/checkpoint/show_name.h"

namespace chorale::coordinator {
namespace {

using nlohmann::json;
using parallel::Checkpoint;
using parallel::GgufValue;

constexpr size_t kShownItems = 6;   // of a metadata list
constexpr size_t kShownText = 100;  // characters of a metadata text; --json prints it whole

// One line of the table of tensors: loadable and skipped ones alike.
struct Row {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  uint64_t num_bytes = 0;

  uint64_t num_elements() const {
    uint64_t n = 1;
    for (const int64_t dim : shape) n *= static_cast<uint64_t>(dim);
    return n;
  }
};

std::vector<Row> rows_of(const Checkpoint& checkpoint) {
  std::vector<Row> rows;
  for (const auto& tensor : checkpoint.tensors()) {
    Row row{tensor.name, std::string(to_string(tensor.type)), {}, tensor.bytes.size()};
    for (int i = 0; i < tensor.shape.num_dims(); ++i) row.shape.push_back(tensor.shape[i]);
    rows.push_back(std::move(row));
  }
  for (const auto& tensor : checkpoint.skipped_tensors())
    rows.push_back({tensor.name, tensor.dtype, tensor.shape, tensor.num_bytes});
  std::ranges::sort(rows, {}, &Row::name);
  return rows;
}

struct Total {
  uint64_t count = 0;
  uint64_t num_bytes = 0;
};

std::map<std::string, Total> totals_of(const std::vector<Row>& rows) {
  std::map<std::string, Total> totals;
  for (const Row& row : rows) {
    Total& total = totals[row.dtype];
    ++total.count;
    total.num_bytes += row.num_bytes;
  }
  return totals;
}

// A list longer than kShownItems becomes {"length": N, "first": [...]}.
json json_of(const GgufValue& value) {
  return std::visit(
      [](const auto& typed) -> json {
        if constexpr (requires {
                        typed.begin();
                        typed.front();
                      } &&
                      !std::is_same_v<std::decay_t<decltype(typed)>, std::string>) {
          json items = json::array();
          for (size_t i = 0; i < std::min(typed.size(), kShownItems); ++i) {
            const typename std::decay_t<decltype(typed)>::value_type item = typed[i];
            items.push_back(item);
          }
          if (typed.size() <= kShownItems) return items;
          return {{"length", typed.size()}, {"first", items}};
        } else {
          return typed;
        }
      },
      value);
}

// Bytes of the file need not be UTF-8.
std::string dump(const json& value, int indent = -1) {
  return value.dump(indent, ' ', false, json::error_handler_t::replace);
}

json json_of(const Checkpoint& checkpoint) {
  const std::vector<Row> rows = rows_of(checkpoint);
  json result = {{"path", checkpoint.path().string()},
                 {"format", checkpoint.gguf() != nullptr ? "gguf" : "safetensors"},
                 {"file_bytes", checkpoint.file_bytes()},
                 {"num_tensors", rows.size()},
                 {"dtypes", json::object()},
                 {"tensors", json::array()}};
  for (const auto& [dtype, total] : totals_of(rows))
    result["dtypes"][dtype] = {{"count", total.count}, {"bytes", total.num_bytes}};
  for (const Row& row : rows)
    result["tensors"].push_back(
        {{"name", row.name}, {"dtype", row.dtype}, {"shape", row.shape}, {"bytes", row.num_bytes}});
  if (checkpoint.gguf() == nullptr) {
    result["config"] = checkpoint.config_json();
    return result;
  }
  result["metadata"] = json::object();
  for (const auto& [key, value] : checkpoint.gguf()->metadata()) result["metadata"][key] = json_of(value);
  return result;
}

// A name from the file for a terminal: control characters, which could drive it, become '?'.
std::string printable(std::string name) {
  for (char& c : name)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return name;
}

std::string mib(uint64_t bytes) { return fmt::format("{:.1f} MiB", static_cast<double>(bytes) / (1 << 20)); }

void print_config(const json& config) {
  // Both spellings: Llama-like and GPT-2.
  constexpr std::string_view kKeys[] = {"architectures",       "model_type",
                                        "num_hidden_layers",   "n_layer",
                                        "hidden_size",         "n_embd",
                                        "intermediate_size",   "n_inner",
                                        "num_attention_heads", "n_head",
                                        "num_key_value_heads", "head_dim",
                                        "vocab_size",          "max_position_embeddings",
                                        "n_positions",         "sliding_window",
                                        "rope_theta",          "rope_scaling",
                                        "rope_parameters",     "tie_word_embeddings",
                                        "torch_dtype",         "dtype",
                                        "bos_token_id",        "eos_token_id"};
  fmt::print("config:\n");
  for (const std::string_view key : kKeys) {
    const auto it = config.find(key);
    if (it != config.end() && !it->is_null()) fmt::print("  {:24} {}\n", key, dump(*it));
  }
}

void print_metadata(const parallel::GgufFile& file) {
  fmt::print("metadata:\n");
  for (const auto& [key, value] : file.metadata()) {
    std::string text;
    if (const auto* whole = std::get_if<std::string>(&value)) {
      text = dump(whole->substr(0, kShownText));
      if (whole->size() > kShownText) text += fmt::format(" ... ({} bytes)", whole->size());
    } else {
      const json shown = json_of(value);
      text = shown.is_object() ? fmt::format("{} items: {} ...", shown["length"].get<size_t>(), dump(shown["first"]))
                               : dump(shown);
    }
    fmt::print("  {} = {}\n", printable(key), text);
  }
}

void print(const Checkpoint& checkpoint, bool with_tensors) {
  const std::vector<Row> rows = rows_of(checkpoint);
  uint64_t num_elements = 0;
  for (const Row& row : rows) num_elements += row.num_elements();
  fmt::print("checkpoint: {}\n", checkpoint.path().string());
  fmt::print("format:     {}\n", checkpoint.gguf() != nullptr ? "GGUF file" : "Hugging Face folder (safetensors)");
  fmt::print("size:       {} ({} bytes)\n", mib(checkpoint.file_bytes()), checkpoint.file_bytes());
  fmt::print("tensors:    {}, {:.3f} M numbers\n", rows.size(), static_cast<double>(num_elements) / 1e6);
  for (const auto& [dtype, total] : totals_of(rows))
    fmt::print("  {:8} {:6} tensors  {:>12}\n", dtype, total.count, mib(total.num_bytes));
  if (!checkpoint.skipped_tensors().empty())
    fmt::print("  {} of them cannot be loaded as weights (type or dims)\n", checkpoint.skipped_tensors().size());
  if (checkpoint.gguf() != nullptr)
    print_metadata(*checkpoint.gguf());
  else
    print_config(checkpoint.config_json());
  if (!with_tensors) return;
  size_t width = 0;
  for (const Row& row : rows) width = std::max(width, row.name.size());
  fmt::print("table of tensors:\n");
  for (const Row& row : rows)
    fmt::print("  {:{}} {:6} {:20} {:>12}\n", printable(row.name), width, row.dtype,
               fmt::format("[{}]", fmt::join(row.shape, ", ")), row.num_bytes);
}

}  // namespace

int run_inspect(int argc, char** argv) {
  cxxopts::Options options("chorale inspect",
                           "Prints what a checkpoint holds: config or metadata, tensors, dtypes, size.");
  options.add_options()                                                                                              //
      ("model", "Hugging Face folder or .gguf file", cxxopts::value<std::string>())                                  //
      ("tensors", "also print the table of tensors")                                                                 //
      ("json", "print one JSON object: path, format, file_bytes, num_tensors, dtypes, tensors, config or metadata")  //
      ("h,help", "print this");
  const auto arguments = options.parse(argc, argv);
  if (arguments.count("help") != 0) {
    std::cout << options.help() << "\nexamples:\n  chorale inspect --model SmolLM2-135M-Instruct.Q4_1.gguf\n"
              << "  chorale inspect --model ./my-model --tensors\n"
              << "  chorale inspect --model ./my-model --json | jq .dtypes\n";
    return kExitOk;
  }
  if (!arguments.unmatched().empty())
    fail(ErrorCode::kInvalidArgument, "chorale inspect: unexpected argument {}; the checkpoint is given by --model",
         parallel::show_name(arguments.unmatched().front()));
  if (arguments.count("model") == 0)
    fail(ErrorCode::kInvalidArgument, "chorale inspect: --model is missing; see --help");

  const Checkpoint checkpoint = Checkpoint::open(arguments["model"].as<std::string>());
  if (arguments.count("json") != 0)
    fmt::print("{}\n", dump(json_of(checkpoint)));
  else
    print(checkpoint, arguments.count("tensors") != 0);
  return kExitOk;
}

}  // namespace chorale::coordinator
