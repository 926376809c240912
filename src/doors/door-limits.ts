/** What one caller may take of a port, so that there is something left for the others. */
export type DoorLimits = {
  /** Connections at once; further ones are closed as they come. */
  readonly maxConnections: number;
  /** Of these, from one address. */
  readonly maxConnectionsPerAddress: number;
  /** Calls at once on one HTTP/2 connection; a client is told, and further ones are refused. */
  readonly maxStreams: number;
  /** Headers of a request, in number. */
  readonly maxHeaders: number;
  /** Headers of a request and its address together, in bytes. */
  readonly maxHeaderBytes: number;
  /** The address of a request, path and query, in bytes. */
  readonly maxUrlBytes: number;
  /** Within how many milliseconds a connection's TLS, its first bytes and a request's headers must be there. */
  readonly headersTimeoutMs: number;
  /** Within how many milliseconds the rest of a request must be there, save one that is a stream. */
  readonly requestTimeoutMs: number;
  /** For how many milliseconds a connection may be kept on which no call is under way. */
  readonly idleTimeoutMs: number;
  /** For how many milliseconds a caller may take nothing of an answer that waits for them. */
  readonly stallTimeoutMs: number;
};

/** The limits of both ports; those on the number of connections are configured. */
export const DOOR_LIMITS: DoorLimits = {
  maxConnections: 10_000,
  maxConnectionsPerAddress: 1_000,
  maxStreams: 1_000,
  maxHeaders: 100,
  maxHeaderBytes: 16_384,
  maxUrlBytes: 8_192,
  headersTimeoutMs: 10_000,
  requestTimeoutMs: 30_000,
  // Longer than the 60 seconds after which load balancers commonly drop an idle connection, so that they do so first.
  idleTimeoutMs: 65_000,
  stallTimeoutMs: 60_000,
};
