import {
  create,
  createRegistry,
  type DescMessage,
  type DescMethod,
  type DescService,
  fromBinary,
  type Message,
  type MessageInitShape,
  toBinary,
} from "@bufbuild/protobuf";
import { anyUnpack } from "@bufbuild/protobuf/wkt";
import {
  type CallOptions,
  Client,
  type ClientReadableStream,
  type ClientUnaryCall,
  credentials,
  Metadata,
  type ServiceError,
} from "@grpc/grpc-js";
import { file_google_rpc_error_details } from "../../src/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../../src/gen/google/rpc/status_pb.js";

export const OPERATOR = "Bearer operator-ann";

/** A real grpc-js client, closed by `using`. */
export function grpcClient(address: string): Client & Disposable {
  const client = new Client(address, credentials.createInsecure(), { "grpc.use_local_subchannel_pool": 1 });
  return Object.assign(client, { [Symbol.dispose]: () => client.close() });
}

export type GrpcAnswer = { readonly bytes: Buffer; readonly headers: Metadata };

export type CallSettings = {
  readonly authorization?: string;
  readonly requestId?: string;
  readonly options?: CallOptions;
  onCall?(call: ClientUnaryCall): void;
};

/** Sends these bytes to a unary method; rejects with the ServiceError. */
export function callBytes(
  client: Client,
  method: DescMethod,
  request: Uint8Array,
  { authorization = OPERATOR, requestId, options = {}, onCall }: CallSettings = {},
): Promise<GrpcAnswer> {
  return new Promise((resolve, reject) => {
    let headers = new Metadata();
    const call = client.makeUnaryRequest(
      pathOf(method),
      identity,
      identity,
      Buffer.from(request),
      metadataOf(authorization, requestId),
      options,
      (error, bytes) => {
        if (error) reject(error);
        else if (bytes) resolve({ bytes, headers });
      },
    );
    call.on("metadata", (metadata: Metadata) => {
      headers = metadata;
    });
    onCall?.(call);
  });
}

/** Calls a unary method; the answer as a message. */
export async function callUnary<I extends DescMessage, O extends DescMessage>(
  client: Client,
  method: DescMethod & { readonly input: I; readonly output: O },
  request: MessageInitShape<I>,
  settings?: CallSettings,
) {
  const { bytes } = await callBytes(client, method, toBinary(method.input, create(method.input, request)), settings);
  return fromBinary(method.output, bytes);
}

/** Opens a server stream of bytes. */
export function openStream<I extends DescMessage>(
  client: Client,
  method: DescMethod & { readonly input: I },
  request: MessageInitShape<I>,
  authorization = OPERATOR,
): ClientReadableStream<Buffer> {
  return client.makeServerStreamRequest(
    pathOf(method),
    identity,
    identity,
    Buffer.from(toBinary(method.input, create(method.input, request))),
    metadataOf(authorization, undefined),
  );
}

/** What a call failed with; throws if it did not. */
export async function failureOf(call: Promise<unknown>): Promise<ServiceError> {
  try {
    await call;
  } catch (error) {
    if (error instanceof Error && "code" in error && "details" in error && "metadata" in error) return error as ServiceError;
    throw error;
  }
  throw new Error("the call succeeded");
}

const registry = createRegistry(file_google_rpc_error_details);

/** The google.rpc details in a failure's trailers, as plain objects by their type's short name. */
export function detailsOf({ metadata }: ServiceError): Readonly<Record<string, Message>> {
  const [bytes] = metadata.get("grpc-status-details-bin");
  if (!(bytes instanceof Buffer)) return {};
  const { details } = fromBinary(StatusSchema, bytes);
  return Object.fromEntries(
    details
      .map((any) => anyUnpack(any, registry))
      .flatMap((message) => (message ? [[message.$typeName.replace("google.rpc.", ""), message]] : [])),
  );
}

function pathOf({ parent, name }: { readonly parent: DescService; readonly name: string }): string {
  return `/${parent.typeName}/${name}`;
}

function metadataOf(authorization: string, requestId: string | undefined): Metadata {
  const metadata = new Metadata();
  if (authorization !== "") metadata.set("authorization", authorization);
  if (requestId !== undefined) metadata.set("x-request-id", requestId);
  return metadata;
}

function identity(bytes: Buffer): Buffer {
  return bytes;
}
