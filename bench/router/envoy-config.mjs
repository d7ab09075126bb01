// Envoy's configuration, as a gateway has it for an InferencePool: whole requests and answers go through the
// picker, and the address is what the picker put into a header.

const type = (name) => `type.googleapis.com/${name}`;

/** Listens at 127.0.0.1:`listen`; the picker's ext_proc is at 127.0.0.1:`picker`, without TLS. */
export function envoyConfig({ listen, picker }) {
  const at = (port) => ({ socket_address: { address: '127.0.0.1', port_value: port } });
  const extProc = {
    name: 'envoy.filters.http.ext_proc',
    typed_config: {
      '@type': type('envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor'),
      grpc_service: { envoy_grpc: { cluster_name: 'picker' }, timeout: '10s' },
      message_timeout: '1000s',
      processing_mode: {
        ...{ request_header_mode: 'SEND', response_header_mode: 'SEND' },
        request_body_mode: 'FULL_DUPLEX_STREAMED',
        response_body_mode: 'FULL_DUPLEX_STREAMED',
        ...{ request_trailer_mode: 'SEND', response_trailer_mode: 'SEND' },
      },
    },
  };
  const router = {
    name: 'envoy.filters.http.router',
    typed_config: { '@type': type('envoy.extensions.filters.http.router.v3.Router') },
  };
  const route = { match: { prefix: '/' }, route: { cluster: 'replicas', timeout: '600s' } };
  const connectionManager = {
    name: 'envoy.filters.network.http_connection_manager',
    typed_config: {
      '@type': type(
        'envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager',
      ),
      stat_prefix: 'gateway',
      route_config: { virtual_hosts: [{ name: 'all', domains: ['*'], routes: [route] }] },
      http_filters: [extProc, router],
    },
  };
  const replicas = {
    ...{ name: 'replicas', type: 'ORIGINAL_DST', lb_policy: 'CLUSTER_PROVIDED' },
    connect_timeout: '10s',
    original_dst_lb_config: {
      use_http_header: true,
      http_header_name: 'x-gateway-destination-endpoint',
    },
  };
  const pickerCluster = {
    ...{ name: 'picker', type: 'STATIC', connect_timeout: '10s' },
    load_assignment: {
      cluster_name: 'picker',
      endpoints: [{ lb_endpoints: [{ endpoint: { address: at(picker) } }] }],
    },
    typed_extension_protocol_options: {
      'envoy.extensions.upstreams.http.v3.HttpProtocolOptions': {
        '@type': type('envoy.extensions.upstreams.http.v3.HttpProtocolOptions'),
        explicit_http_config: { http2_protocol_options: {} },
      },
    },
  };
  return {
    static_resources: {
      listeners: [
        { name: 'in', address: at(listen), filter_chains: [{ filters: [connectionManager] }] },
      ],
      clusters: [replicas, pickerCluster],
    },
  };
}
