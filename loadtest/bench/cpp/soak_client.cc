// Unary calls that are cancelled, run out of time and lose their connections at random; every answer is looked at.
//
// soak_client PORT MODEL REQUESTS CONNECTIONS IN_FLIGHT FIRST CANCEL_SHARE DEADLINE_SHARE DROP_SHARE LARGE_SHARE
// Sends INT64 [1, n] to 127.0.0.1, no two elements of all requests alike; FIRST is the first request's number. Prints
// `done N` a hundred times, then one line of JSON that says what became of each request. Exits with 1 where one of them
// came to an end that nobody brought about.

#include <arpa/inet.h>
#include <fcntl.h>
#include <grpcpp/create_channel_posix.h>
#include <grpcpp/grpcpp.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <queue>
#include <random>
#include <string>
#include <vector>

#include "erg_server/pb/inference.grpc.pb.h"

using Clock = std::chrono::system_clock;
using inference::GRPCInferenceService;
using inference::ModelInferRequest;
using inference::ModelInferResponse;

namespace {

constexpr int kSmallElements = 4;
constexpr int kLargeLeast = 75'000, kLargeMost = 250'000;  // 600 KB to 2 MB.
constexpr double kLongestPatienceMs = 20;
constexpr int kShownFailures = 10;

struct Shares {
  double cancel, deadline, drop, large;
};

struct Tally {
  long sent = 0, answered = 0, cancelled = 0, deadline = 0, lost = 0, wrong = 0, failed = 0;
  long large = 0, compressed = 0, cancels = 0, deadlines = 0, drops = 0;
  std::vector<std::string> failures;

  void Show(const std::string& failure) {
    if (failures.size() < kShownFailures) failures.push_back(failure);
  }
};

int64_t Element(long number, int at) { return int64_t(number) << 20 | at; }

// A socket of our own under a channel, so that it can be torn away while calls are under way.
class Connection {
 public:
  Connection(int port) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int fd = socket(AF_INET, SOCK_STREAM, 0);
    const int one = 1;
    if (fd < 0 || connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) ||
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one)) {
      std::perror("soak_client: connect");
      std::exit(2);
    }
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    // gRPC closes its descriptor when it likes; this one is surely still ours when the connection is dropped.
    own_ = dup(fd);
    grpc::ChannelArguments arguments;
    arguments.SetMaxReceiveMessageSize(-1);
    stub_ = GRPCInferenceService::NewStub(grpc::CreateCustomInsecureChannelFromFd("soak", fd, arguments));
  }
  ~Connection() { close(own_); }

  // With a reset, what is under way is thrown away at once; without, the peer reads to the end first.
  void Drop(bool reset) {
    dropped_ = true;
    sockaddr nobody{};
    nobody.sa_family = AF_UNSPEC;
    if (reset ? connect(own_, &nobody, sizeof nobody) : shutdown(own_, SHUT_RDWR)) std::perror("soak_client: drop");
  }
  bool dropped() const { return dropped_; }
  GRPCInferenceService::Stub& stub() { return *stub_; }

 private:
  int own_;
  bool dropped_ = false;
  std::unique_ptr<GRPCInferenceService::Stub> stub_;
};

struct Call {
  long number = -1;
  int elements = 0;
  bool cancelled = false, has_deadline = false;
  std::shared_ptr<Connection> connection;
  std::unique_ptr<grpc::ClientContext> context;
  std::unique_ptr<grpc::ClientAsyncResponseReader<ModelInferResponse>> reader;
  ModelInferResponse response;
  grpc::Status status;
};

// Why an answer is not that call's, "" when it is.
std::string Mismatch(const Call& call) {
  const auto& response = call.response;
  if (response.id() != std::to_string(call.number)) return "the id is " + response.id();
  if (response.outputs_size() != 1 || response.raw_output_contents_size() != 1) return "there is not one output";
  const auto& shape = response.outputs(0).shape();
  if (shape.size() != 2 || shape[0] != 1 || shape[1] != call.elements) return "the shape is another";
  const auto& raw = response.raw_output_contents(0);
  if (raw.size() != size_t(call.elements) * 8) return "there are " + std::to_string(raw.size()) + " bytes";
  const auto* values = reinterpret_cast<const int64_t*>(raw.data());
  for (int at = 0; at < call.elements; ++at) {
    if (values[at] != Element(call.number, at)) return "element " + std::to_string(at) + " is another";
  }
  return "";
}

class Soak {
 public:
  Soak(int port, std::string model, long requests, int connections, int in_flight, long first, Shares shares)
      : port_(port), model_(std::move(model)), requests_(requests), first_(first), shares_(shares), random_(first + 1),
        calls_(in_flight) {
    for (int i = 0; i < connections; ++i) connections_.push_back(std::make_shared<Connection>(port));
  }

  const Tally& Run() {
    for (size_t i = 0; i < calls_.size() && tally_.sent < requests_; ++i) Send(i);
    void* tag;
    bool ok;
    while (open_) {
      const auto until = patience_.empty() ? Clock::now() + std::chrono::seconds(60) : patience_.top().at;
      const auto next = queue_.AsyncNext(&tag, &ok, until);
      while (!patience_.empty() && patience_.top().at <= Clock::now()) {
        Call& call = calls_[patience_.top().slot];
        if (call.number == patience_.top().number) {
          call.cancelled = true;
          call.context->TryCancel();
        }
        patience_.pop();
      }
      if (next != grpc::CompletionQueue::GOT_EVENT) continue;
      const auto slot = reinterpret_cast<size_t>(tag);
      Ended(calls_[slot]);
      if (Chance(shares_.drop)) Drop();
      if (tally_.sent < requests_) Send(slot);
    }
    queue_.Shutdown();
    while (queue_.Next(&tag, &ok)) {
    }
    return tally_;
  }

 private:
  struct Patience {
    Clock::time_point at;
    size_t slot;
    long number;
    bool operator<(const Patience& other) const { return at > other.at; }
  };

  bool Chance(double share) { return std::uniform_real_distribution<>()(random_) < share; }

  // Short ones are likelier, so that calls end in every state.
  std::chrono::microseconds SomeTime() {
    return std::chrono::microseconds(long(std::pow(std::uniform_real_distribution<>()(random_), 3) * kLongestPatienceMs * 1e3));
  }

  void Send(size_t slot) {
    Call& call = calls_[slot];
    call.number = first_ + tally_.sent++;
    ++open_;
    call.cancelled = false;
    call.connection = connections_[slot % connections_.size()];
    call.context = std::make_unique<grpc::ClientContext>();
    call.response.Clear();
    const bool large = Chance(shares_.large);
    tally_.large += large;
    call.elements = large ? std::uniform_int_distribution<>(kLargeLeast, kLargeMost)(random_) : 1 + call.number % kSmallElements;
    if (Chance(shares_.large)) {
      ++tally_.compressed;
      call.context->set_compression_algorithm(GRPC_COMPRESS_GZIP);
    }
    call.has_deadline = Chance(shares_.deadline);
    tally_.deadlines += call.has_deadline;
    // Without one, a call that never ends would hang this program instead of being told of.
    call.context->set_deadline(Clock::now() + (call.has_deadline ? SomeTime() : std::chrono::microseconds(120'000'000)));
    if (Chance(shares_.cancel)) {
      ++tally_.cancels;
      patience_.push({Clock::now() + SomeTime(), slot, call.number});
    }
    ModelInferRequest request;
    request.set_model_name(model_);
    request.set_id(std::to_string(call.number));
    auto* input = request.add_inputs();
    input->set_name("INPUT0");
    input->set_datatype("INT64");
    input->add_shape(1);
    input->add_shape(call.elements);
    auto* raw = request.add_raw_input_contents();
    raw->resize(size_t(call.elements) * 8);
    auto* values = reinterpret_cast<int64_t*>(raw->data());
    for (int at = 0; at < call.elements; ++at) values[at] = Element(call.number, at);
    call.reader = call.connection->stub().AsyncModelInfer(call.context.get(), request, &queue_);
    call.reader->Finish(&call.response, &call.status, reinterpret_cast<void*>(slot));
  }

  void Ended(Call& call) {
    --open_;
    const auto code = call.status.error_code();
    if (call.status.ok()) {
      const auto wrong = Mismatch(call);
      ++(wrong.empty() ? tally_.answered : tally_.wrong);
      if (!wrong.empty()) tally_.Show("request " + std::to_string(call.number) + " is answered wrong: " + wrong);
    } else if (code == grpc::StatusCode::CANCELLED && call.cancelled) {
      ++tally_.cancelled;
    } else if (call.has_deadline && (code == grpc::StatusCode::DEADLINE_EXCEEDED ||
                                     // Refused on arrival, since it could not be answered in time.
                                     code == grpc::StatusCode::RESOURCE_EXHAUSTED)) {
      ++tally_.deadline;
    } else if (code == grpc::StatusCode::UNAVAILABLE && call.connection->dropped()) {
      ++tally_.lost;
    } else {
      ++tally_.failed;
      // One that ended by itself costs the calls that it had, and not those after them.
      if (code == grpc::StatusCode::UNAVAILABLE) Replace(call.connection);
      tally_.Show("request " + std::to_string(call.number) + ", " + std::to_string(call.elements) + " elements: status " +
                  std::to_string(code) + ": " + call.status.error_message());
    }
    call.number = -1;
    call.connection.reset();
    if (++ended_ * 100 / requests_ > (ended_ - 1) * 100 / requests_) {
      std::printf("done %ld\n", ended_);
      std::fflush(stdout);
    }
  }

  void Replace(const std::shared_ptr<Connection>& ended) {
    for (auto& connection : connections_) {
      if (connection == ended) connection = std::make_shared<Connection>(port_);
    }
  }

  void Drop() {
    ++tally_.drops;
    auto& connection = connections_[std::uniform_int_distribution<size_t>(0, connections_.size() - 1)(random_)];
    connection->Drop(Chance(0.5));
    connection = std::make_shared<Connection>(port_);
  }

  int port_;
  std::string model_;
  long requests_, first_;
  Shares shares_;
  std::mt19937_64 random_;
  grpc::CompletionQueue queue_;
  std::vector<std::shared_ptr<Connection>> connections_;
  std::vector<Call> calls_;
  std::priority_queue<Patience> patience_;
  Tally tally_;
  long open_ = 0, ended_ = 0;
};

std::string Quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c < ' ' ? ' ' : c;
  }
  return out + '"';
}

void Print(const Tally& tally) {
  std::string failures;
  for (const auto& failure : tally.failures) failures += (failures.empty() ? "" : ", ") + Quoted(failure);
  std::printf(
      "{\"sent\": %ld, \"answered\": %ld, \"cancelled\": %ld, \"deadline\": %ld, \"lost\": %ld, \"wrong\": %ld, "
      "\"failed\": %ld, \"large\": %ld, \"compressed\": %ld, \"cancels\": %ld, \"deadlines\": %ld, \"drops\": %ld, "
      "\"failures\": [%s]}\n",
      tally.sent, tally.answered, tally.cancelled, tally.deadline, tally.lost, tally.wrong, tally.failed, tally.large,
      tally.compressed, tally.cancels, tally.deadlines, tally.drops, failures.c_str());
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 11) {
    std::fprintf(stderr, "usage: soak_client PORT MODEL REQUESTS CONNECTIONS IN_FLIGHT FIRST "
                         "CANCEL_SHARE DEADLINE_SHARE DROP_SHARE LARGE_SHARE\n");
    return 2;
  }
  const Shares shares{std::atof(argv[7]), std::atof(argv[8]), std::atof(argv[9]), std::atof(argv[10])};
  Soak soak(std::atoi(argv[1]), argv[2], std::atol(argv[3]), std::atoi(argv[4]), std::atoi(argv[5]), std::atol(argv[6]), shares);
  const auto& tally = soak.Run();
  Print(tally);
  return tally.wrong || tally.failed ? 1 : 0;
}
