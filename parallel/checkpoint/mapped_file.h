// A whole file mapped read-only into memory; the checkpoint parsers and the weight loaders read through it, so that
// each rank only touches the pages of its own slices. It knows no format and never writes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <utility>

namespace chorale::parallel {

class MappedFile {
 public:
  /// Maps the whole file. Throws Error{kNotFound} when there is none, Error{kCorrupt} when it is empty or not a regular
  /// file, Error{kSystem} when the system refuses.
  static MappedFile open(const std::filesystem::path& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  const std::filesystem::path& path() const { return path_; }
  std::span<const std::byte> bytes() const { return {static_cast<const std::byte*>(data_), size_}; }

  /// Throws Error{kCorrupt} when the file became shorter since it was mapped: touching the missing pages would be a
  /// SIGBUS. Costs one fstat; readers call it before a large read.
  void check_not_truncated() const;

 private:
  MappedFile(std::filesystem::path path, int fd) : path_(std::move(path)), fd_(fd) {}
  void close() noexcept;

  std::filesystem::path path_;
  int fd_ = -1;
  void* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace chorale::parallel
