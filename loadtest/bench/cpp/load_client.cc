// A closed loop of ModelInfer calls in C++, so that the client is not what is measured.
//
// load_client TARGET MODEL ELEMENTS IN_FLIGHT CONNECTIONS SECONDS [stream]
// Sends fp32 [1, ELEMENTS] and prints one line of JSON. With `stream`, one bidirectional stream carries IN_FLIGHT
// requests that are not answered yet.

#include <grpcpp/grpcpp.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "erg_server/pb/inference.grpc.pb.h"

using Clock = std::chrono::steady_clock;
using inference::GRPCInferenceService;
using inference::ModelInferRequest;
using inference::ModelInferResponse;
using inference::ModelStreamInferResponse;

namespace {

struct Tally {
  long answered = 0;
  long failed = 0;
  std::vector<float> latencies_us;
  std::string failure;
};

double Seconds(const timeval& time) { return time.tv_sec + time.tv_usec / 1e6; }

void Print(Tally& tally, double wall_s, const rusage& before) {
  rusage after;
  getrusage(RUSAGE_SELF, &after);
  const double cpu_s = Seconds(after.ru_utime) + Seconds(after.ru_stime) - Seconds(before.ru_utime) - Seconds(before.ru_stime);
  auto& all = tally.latencies_us;
  std::sort(all.begin(), all.end());
  const auto at = [&](double share) { return all.empty() ? 0.0f : all[std::min(all.size() - 1, size_t(share * all.size()))]; };
  std::printf(
      "{\"answered\": %ld, \"failed\": %ld, \"wall_s\": %.6f, \"client_cpu_s\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f, "
      "\"failure\": \"%s\"}\n",
      tally.answered, tally.failed, wall_s, cpu_s, at(0.5), at(0.99), tally.failure.c_str());
}

ModelInferRequest MakeRequest(const std::string& model, int elements) {
  ModelInferRequest request;
  request.set_model_name(model);
  auto* input = request.add_inputs();
  input->set_name("x");
  input->set_datatype("FP32");
  input->add_shape(1);
  input->add_shape(elements);
  request.add_raw_input_contents(std::string(size_t(elements) * 4, '\0'));
  return request;
}

struct Call {
  GRPCInferenceService::Stub* stub;
  std::unique_ptr<grpc::ClientContext> context;
  std::unique_ptr<grpc::ClientAsyncResponseReader<ModelInferResponse>> reader;
  ModelInferResponse response;
  grpc::Status status;
  Clock::time_point sent;

  void Send(const ModelInferRequest& request, grpc::CompletionQueue* queue) {
    context = std::make_unique<grpc::ClientContext>();
    response.Clear();
    sent = Clock::now();
    reader = stub->AsyncModelInfer(context.get(), request, queue);
    reader->Finish(&response, &status, this);
  }
};

void RunUnary(std::vector<std::unique_ptr<GRPCInferenceService::Stub>>& stubs, const ModelInferRequest& request,
              int in_flight, Clock::time_point end, Tally& tally) {
  grpc::CompletionQueue queue;
  std::vector<Call> calls(in_flight);
  for (int i = 0; i < in_flight; ++i) {
    calls[i].stub = stubs[i % stubs.size()].get();
    calls[i].Send(request, &queue);
  }
  int open = in_flight;
  void* tag;
  bool ok;
  while (open > 0 && queue.Next(&tag, &ok)) {
    auto* call = static_cast<Call*>(tag);
    const auto now = Clock::now();
    if (call->status.ok()) {
      ++tally.answered;
      tally.latencies_us.push_back(std::chrono::duration<float, std::micro>(now - call->sent).count());
    } else {
      ++tally.failed;
      tally.failure = call->status.error_message();
    }
    if (now < end && tally.failed < 100) {
      call->Send(request, &queue);
    } else {
      --open;
    }
  }
  queue.Shutdown();
  while (queue.Next(&tag, &ok)) {
  }
}

void RunStream(GRPCInferenceService::Stub& stub, const ModelInferRequest& request, int window, Clock::time_point end,
               Tally& tally) {
  grpc::ClientContext context;
  auto stream = stub.ModelStreamInfer(&context);
  std::vector<Clock::time_point> sent(window);
  long written = 0, read = 0;
  for (; written < window; ++written) {
    sent[written % window] = Clock::now();
    stream->Write(request);
  }
  ModelStreamInferResponse response;
  bool closed = false;
  while (read < written && stream->Read(&response)) {
    const auto now = Clock::now();
    if (response.error_message().empty()) {
      ++tally.answered;
    } else {
      ++tally.failed;
      tally.failure = response.error_message();
    }
    tally.latencies_us.push_back(std::chrono::duration<float, std::micro>(now - sent[read % window]).count());
    ++read;
    if (now < end && tally.failed < 100) {
      sent[written % window] = now;
      stream->Write(request);
      ++written;
    } else if (!closed) {
      closed = true;
      stream->WritesDone();
    }
  }
  const auto status = stream->Finish();
  if (!status.ok()) {
    ++tally.failed;
    tally.failure = status.error_message();
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 7) {
    std::fprintf(stderr, "usage: load_client TARGET MODEL ELEMENTS IN_FLIGHT CONNECTIONS SECONDS [stream]\n");
    return 2;
  }
  const int in_flight = std::atoi(argv[4]), connections = std::atoi(argv[5]);
  const double seconds = std::atof(argv[6]);
  std::vector<std::unique_ptr<GRPCInferenceService::Stub>> stubs;
  for (int i = 0; i < connections; ++i) {
    grpc::ChannelArguments arguments;
    arguments.SetInt("erg.connection", i);  // Channels with equal arguments share a connection.
    arguments.SetMaxReceiveMessageSize(-1);
    stubs.push_back(GRPCInferenceService::NewStub(
        grpc::CreateCustomChannel(argv[1], grpc::InsecureChannelCredentials(), arguments)));
  }
  const auto request = MakeRequest(argv[2], std::atoi(argv[3]));
  Tally warm_up, tally;
  RunUnary(stubs, request, in_flight, Clock::now() + std::chrono::milliseconds(500), warm_up);
  std::printf("ready\n");
  std::fflush(stdout);
  rusage before;
  getrusage(RUSAGE_SELF, &before);
  const auto start = Clock::now();
  const auto end = start + std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(seconds));
  if (argc > 7) {
    RunStream(*stubs[0], request, in_flight, end, tally);
  } else {
    RunUnary(stubs, request, in_flight, end, tally);
  }
  Print(tally, std::chrono::duration<double>(Clock::now() - start).count(), before);
  return tally.failed ? 1 : 0;
}
