// Calls of C++ gRPC, as cases.py has them: bytes to a path, without stubs, so that nothing has to be generated.
//
// calls ADDRESS ROOT_CERTIFICATE|- turn|once < calls
// Reads blocks of lines (`call SHAPE PATH DEADLINE_MS CANCEL_AFTER COMPRESSION`, `meta KEY HEX`, `send HEX`),
// where -1 and - stand for none, and prints a line for each: CODE DETAILS, then `meta NAME` and `answer HEX` lines.

#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/grpcpp.h>

#include <chrono>
#include <fstream>
#include <future>
#include <iostream>
#include <sstream>
#include <string>
#include <utility>
#include <vector>

namespace {

constexpr int kGiveUpMs = 60000;

struct Call {
  std::string shape, path, compression;
  int deadline_ms = -1, cancel_after = -1;
  std::vector<std::pair<std::string, std::string>> metadata;
  std::vector<std::string> requests;
};

int Digit(char hex) { return hex <= '9' ? hex - '0' : hex - 'a' + 10; }

std::string FromHex(const std::string& hex) {
  std::string raw(hex.size() / 2, '\0');
  for (size_t i = 0; i < raw.size(); ++i) raw[i] = char(Digit(hex[2 * i]) << 4 | Digit(hex[2 * i + 1]));
  return raw;
}

std::string ToHex(const std::string& raw) {
  static const char* const digits = "0123456789abcdef";
  std::string hex;
  hex.reserve(2 * raw.size());
  for (unsigned char byte : raw) {
    hex.push_back(digits[byte >> 4]);
    hex.push_back(digits[byte & 15]);
  }
  return hex;
}

std::vector<Call> ReadCalls(std::istream& in) {
  std::vector<Call> calls;
  std::string line;
  while (std::getline(in, line)) {
    std::istringstream words(line.substr(0, 16 << 10));
    std::string kind, key, hex;
    words >> kind;
    if (kind == "call") {
      Call call;
      words >> call.shape >> call.path >> call.deadline_ms >> call.cancel_after >> call.compression;
      calls.push_back(std::move(call));
    } else if (kind == "meta") {
      words >> key >> hex;
      calls.back().metadata.emplace_back(key, FromHex(hex));
    } else if (kind == "send") {
      // Not by `words`, which takes a second for megabytes.
      calls.back().requests.push_back(FromHex(line.substr(5)));
    }
  }
  return calls;
}

// Waits for the one operation that is under way.
bool Done(grpc::CompletionQueue& queue) {
  void* tag;
  bool ok = false;
  return queue.Next(&tag, &ok) && ok;
}

std::string Bytes(const grpc::ByteBuffer& buffer) {
  std::vector<grpc::Slice> slices;
  std::string raw;
  if (buffer.Dump(&slices).ok()) {
    for (const auto& slice : slices) raw.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  }
  return raw;
}

std::string Make(grpc::GenericStub& stub, const Call& call) {
  grpc::ClientContext context;
  grpc::CompletionQueue queue;
  const int wait_ms = call.deadline_ms < 0 ? kGiveUpMs : call.deadline_ms;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::milliseconds(wait_ms));
  context.set_wait_for_ready(true);
  if (call.compression == "gzip") context.set_compression_algorithm(GRPC_COMPRESS_GZIP);
  if (call.compression == "deflate") context.set_compression_algorithm(GRPC_COMPRESS_DEFLATE);
  for (const auto& [key, value] : call.metadata) context.AddMetadata(key, value);

  std::vector<std::string> answers;
  auto stream = stub.PrepareCall(&context, call.path, &queue);
  stream->StartCall(nullptr);
  bool open = Done(queue);
  for (const auto& request : call.requests) {
    if (!open) break;
    const grpc::Slice slice(request);
    stream->Write(grpc::ByteBuffer(&slice, 1), nullptr);
    open = Done(queue);
  }
  // A server that is told of the end might answer with the status before the call is cancelled.
  if (open && (call.cancel_after < 0 || call.shape != "bidi")) {
    stream->WritesDone(nullptr);
    Done(queue);
  }
  grpc::ByteBuffer answer;
  for (stream->Read(&answer, nullptr); Done(queue); stream->Read(&answer, nullptr)) {
    answers.push_back(Bytes(answer));
    if (int(answers.size()) == call.cancel_after) context.TryCancel();
  }
  grpc::Status status;
  stream->Finish(&status, nullptr);
  Done(queue);

  std::ostringstream out;
  out << status.error_code() << " " << ToHex(status.error_message()) << "\n";
  for (const auto& fields : {context.GetServerInitialMetadata(), context.GetServerTrailingMetadata()}) {
    for (const auto& field : fields) out << "meta " << std::string(field.first.data(), field.first.size()) << "\n";
  }
  for (const auto& raw : answers) out << "answer " << ToHex(raw) << "\n";
  return out.str();
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    std::cerr << "usage: calls ADDRESS ROOT_CERTIFICATE|- turn|once\n";
    return 2;
  }
  std::shared_ptr<grpc::ChannelCredentials> credentials = grpc::InsecureChannelCredentials();
  if (std::string(argv[2]) != "-") {
    std::ifstream file(argv[2]);
    std::ostringstream roots;
    roots << file.rdbuf();
    credentials = grpc::SslCredentials({roots.str(), "", ""});
  }
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  arguments.SetMaxSendMessageSize(-1);
  grpc::GenericStub stub(grpc::CreateCustomChannel(argv[1], credentials, arguments));
  const auto calls = ReadCalls(std::cin);
  const auto how = std::string(argv[3]) == "once" ? std::launch::async : std::launch::deferred;
  std::vector<std::future<std::string>> results;
  for (const auto& call : calls) results.push_back(std::async(how, [&] { return Make(stub, call); }));
  for (auto& result : results) std::cout << result.get();
  return 0;
}
