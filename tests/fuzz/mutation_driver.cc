// Runs one fuzz target without libFuzzer: mutates the seeds at random, without looking at coverage. Same --seed and
// same number of iterations, same inputs. A crash, an escaped exception, a hang or a huge allocation writes the input
// to a file and says how to repeat it.
//   NAME_fuzz [--seconds N] [--iterations N] [--seed S] SEED_FILE_OR_FOLDER...
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <string_view>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);
extern "C" void __sanitizer_set_death_callback(void (*callback)())
    __attribute__((weak));  // present in sanitizer builds

namespace {

constexpr size_t kMaxInputBytes = 1 << 16;
constexpr unsigned kHangSeconds = 10;
constexpr rlim_t kMaxMemory = rlim_t{4} << 30;

// What a crash handler may touch.
const std::string* current_input = nullptr;
char crash_file[256];
char crash_note[1024];

void save_input() {
  if (current_input == nullptr) return;
  const int fd = open(crash_file, O_WRONLY | O_CREAT | O_TRUNC, 0644);
  if (fd >= 0) {
    (void)!write(fd, current_input->data(), current_input->size());
    close(fd);
  }
  (void)!write(STDERR_FILENO, crash_note, std::strlen(crash_note));
  current_input = nullptr;
}

extern "C" void on_signal(int number) {
  save_input();
  signal(number, SIG_DFL);
  raise(number);
}

class Mutator {
 public:
  Mutator(std::vector<std::string> seeds, uint64_t seed) : seeds_(std::move(seeds)), random_(seed) {}

  std::string next() {
    std::string input = seeds_[below(seeds_.size())];
    for (size_t rounds = size_t{1} << below(5); rounds > 0; --rounds) mutate(input);
    if (input.size() > kMaxInputBytes) input.resize(kMaxInputBytes);
    return input;
  }

 private:
  // std distributions differ between libraries; a remainder does not.
  size_t below(size_t limit) { return limit == 0 ? 0 : static_cast<size_t>(random_() % limit); }

  void mutate(std::string& input) {
    const size_t at = below(input.size());
    const size_t length = std::min(input.size() - at, size_t{1} << below(8));
    switch (below(9)) {
      case 0:
        if (!input.empty()) input[at] ^= static_cast<char>(1 << below(8));
        break;
      case 1:
        if (!input.empty()) input[at] = static_cast<char>(below(256));
        break;
      case 2: input.insert(at, 1 + below(8), static_cast<char>(below(256))); break;
      case 3: input.erase(at, length); break;
      case 4: input.insert(at, input.substr(at, length)); break;
      case 5: input.insert(below(input.size()), input.substr(at, length)); break;
      case 6: splice(input, at); break;
      case 7: put_integer(input, at); break;
      default: input.insert(at, kTokens[below(std::size(kTokens))]); break;
    }
  }

  // The rest of another seed behind the beginning of this one.
  void splice(std::string& input, size_t at) {
    const std::string& other = seeds_[below(seeds_.size())];
    input = input.substr(0, at) + other.substr(below(other.size()));
  }

  void put_integer(std::string& input, size_t at) {
    constexpr uint64_t kValues[] = {0,
                                    1,
                                    2,
                                    0x7f,
                                    0x80,
                                    0xff,
                                    0x7fff,
                                    0x8000,
                                    0xffff,
                                    0x7fffffff,
                                    0x80000000,
                                    0xffffffff,
                                    0x100000000,
                                    0x7fffffffffffffff,
                                    0x8000000000000000,
                                    0xffffffffffffffff,
                                    0xfffffffffffffff0};
    const uint64_t value = kValues[below(std::size(kValues))] + below(3) - 1;
    const size_t width = std::min(size_t{1} << below(4), input.size() - at);
    std::memcpy(input.data() + at, &value, width);
  }

  // Pieces of the text formats among the targets: JSON, Jinja, HTTP.
  static constexpr std::string_view kTokens[] = {"{",       "}",        "[",    "]",  "\"",    ":",
                                                 ",",       "null",     "true", "-1", "1e999", "18446744073709551616",
                                                 "\\u0000", "\\ud800",  "{{",   "}}", "{%",    "%}",
                                                 "{#",      "|",        "(",    ")",  "\xff",  "\xf0\x9f\x98\x80",
                                                 "\r\n",    "[[[[[[[[", "0.5",  "'",  "for ",  " in ",
                                                 "endif",   "if ",      "~",    "-",  "\\",    " "};

  std::vector<std::string> seeds_;
  std::mt19937_64 random_;
};

std::string read_file(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

struct Arguments {
  double seconds = 5;
  uint64_t iterations = UINT64_MAX;
  uint64_t seed = 1;
  std::vector<std::filesystem::path> paths;  // files, sorted, so that a folder's order does not matter
};

Arguments parse_arguments(int argc, char** argv) {
  Arguments arguments;
  for (int i = 1; i < argc; ++i) {
    const std::string_view name = argv[i];
    if (name.starts_with("--")) {
      if (i + 1 == argc || (name != "--seconds" && name != "--iterations" && name != "--seed")) {
        std::fprintf(stderr, "usage: %s [--seconds N] [--iterations N] [--seed S] SEED_FILE_OR_FOLDER...\n", argv[0]);
        std::exit(2);
      }
      const char* value = argv[++i];
      if (name == "--seconds") arguments.seconds = std::atof(value);
      if (name == "--iterations") arguments.iterations = std::strtoull(value, nullptr, 10);
      if (name == "--seed") arguments.seed = std::strtoull(value, nullptr, 10);
    } else if (std::filesystem::is_directory(argv[i])) {
      for (const auto& item : std::filesystem::directory_iterator(argv[i]))
        if (item.is_regular_file()) arguments.paths.push_back(item.path());
    } else {
      arguments.paths.emplace_back(argv[i]);
    }
  }
  std::sort(arguments.paths.begin(), arguments.paths.end());
  return arguments;
}

void run_one(const std::string& input, const std::string& target, const Arguments& arguments, uint64_t iteration) {
  std::snprintf(crash_file, sizeof(crash_file), "crash-%s-seed%llu-%llu", target.c_str(),
                static_cast<unsigned long long>(arguments.seed), static_cast<unsigned long long>(iteration));
  std::snprintf(
      crash_note, sizeof(crash_note),
      "\n%s: crash or hang at --seed %llu, iteration %llu; the input is in %s: repeat with %s --iterations 0 %s\n",
      target.c_str(), static_cast<unsigned long long>(arguments.seed), static_cast<unsigned long long>(iteration),
      crash_file, target.c_str(), crash_file);
  current_input = &input;
  alarm(kHangSeconds);
  // A copy of the exact size on the heap, so that a sanitizer sees every read past the end.
  const std::vector<uint8_t> exact(input.begin(), input.end());
  LLVMFuzzerTestOneInput(exact.data(), exact.size());
  alarm(0);
  current_input = nullptr;
}

}  // namespace

int main(int argc, char** argv) {
  const Arguments arguments = parse_arguments(argc, argv);
  const std::string target = std::filesystem::path(argv[0]).filename().string();
  for (const int number : {SIGSEGV, SIGABRT, SIGFPE, SIGBUS, SIGILL, SIGALRM}) signal(number, on_signal);
  if (__sanitizer_set_death_callback != nullptr) {
    __sanitizer_set_death_callback(save_input);
  } else {
    const rlimit limit{kMaxMemory, kMaxMemory};  // a sanitizer's shadow memory would not fit
    setrlimit(RLIMIT_AS, &limit);
  }

  std::vector<std::string> seeds;
  for (const auto& path : arguments.paths) seeds.push_back(read_file(path));
  for (size_t i = 0; i < seeds.size(); ++i) run_one(seeds[i], target, arguments, i);  // as they are
  const size_t num_seeds = seeds.size();
  seeds.emplace_back();  // the empty input

  Mutator mutator(std::move(seeds), arguments.seed);
  const auto start = std::chrono::steady_clock::now();
  const auto elapsed = [&] { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); };
  uint64_t iteration = 0;
  for (; iteration < arguments.iterations && (arguments.iterations != UINT64_MAX || elapsed() < arguments.seconds);
       ++iteration)
    run_one(mutator.next(), target, arguments, num_seeds + iteration);
  std::printf("%s: %llu iterations from %zu seeds in %.1f s, --seed %llu\n", target.c_str(),
              static_cast<unsigned long long>(iteration), num_seeds, elapsed(),
              static_cast<unsigned long long>(arguments.seed));
  return 0;
}
