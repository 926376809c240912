import { ServerInterceptingCall, type ServerInterceptor, status } from "@grpc/grpc-js";

/** Ends calls with DEADLINE_EXCEEDED whose request is not there, to its end, after `timeoutMs`; save those that are streams of requests. */
export function limitRequestTime(timeoutMs: number): ServerInterceptor {
  return ({ requestStream }, call) => {
    if (requestStream) return new ServerInterceptingCall(call);
    const timer = setTimeout(
      () => call.sendStatus({ code: status.DEADLINE_EXCEEDED, details: "the request did not arrive in time" }),
      timeoutMs,
    );
    return new ServerInterceptingCall(call, {
      start: (next) =>
        next({
          onReceiveHalfClose: (proceed) => {
            clearTimeout(timer);
            proceed();
          },
          onCancel: () => clearTimeout(timer),
        }),
    });
  };
}
