/* The floor: a server that answers every gRPC call with the same bytes, with epoll and libnghttp2 and nothing else.

   Run by benchmarks/servers.py: floor PORT FILE, where the file is the message to answer with. What a check costs above it is what
   the sidecar does besides HTTP/2 and the system's calls. It is no example of a server: one core, loopback, no limits, no time-outs,
   and whoever asks is allowed. The declarations are those that it needs of nghttp2.h, so that no header of the library has to be
   installed. */

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

typedef struct nghttp2_session nghttp2_session;
typedef struct nghttp2_session_callbacks nghttp2_session_callbacks;
typedef struct { size_t length; int32_t stream_id; uint8_t type, flags, reserved; } nghttp2_frame_hd;
typedef struct { uint8_t *name, *value; size_t namelen, valuelen; uint8_t flags; } nghttp2_nv;
typedef union { int fd; void *ptr; } nghttp2_data_source;
typedef ssize_t (*read_callback)(nghttp2_session *, int32_t, uint8_t *, size_t, uint32_t *, nghttp2_data_source *, void *);
typedef struct { nghttp2_data_source source; read_callback read; } nghttp2_data_provider;
typedef struct { int32_t settings_id; uint32_t value; } nghttp2_settings_entry;
typedef int (*frame_callback)(nghttp2_session *, const nghttp2_frame_hd *, void *);
typedef int (*header_callback)(nghttp2_session *, const nghttp2_frame_hd *, const uint8_t *, size_t, const uint8_t *, size_t, uint8_t,
                               void *);
typedef int (*data_callback)(nghttp2_session *, uint8_t, int32_t, const uint8_t *, size_t, void *);

int nghttp2_session_callbacks_new(nghttp2_session_callbacks **);
void nghttp2_session_callbacks_set_on_frame_recv_callback(nghttp2_session_callbacks *, frame_callback);
void nghttp2_session_callbacks_set_on_header_callback(nghttp2_session_callbacks *, header_callback);
void nghttp2_session_callbacks_set_on_data_chunk_recv_callback(nghttp2_session_callbacks *, data_callback);
int nghttp2_session_server_new(nghttp2_session **, const nghttp2_session_callbacks *, void *);
void nghttp2_session_del(nghttp2_session *);
ssize_t nghttp2_session_mem_recv(nghttp2_session *, const uint8_t *, size_t);
ssize_t nghttp2_session_mem_send(nghttp2_session *, const uint8_t **);
int nghttp2_submit_settings(nghttp2_session *, uint8_t, const nghttp2_settings_entry *, size_t);
int nghttp2_submit_response(nghttp2_session *, int32_t, const nghttp2_nv *, size_t, const nghttp2_data_provider *);
int nghttp2_submit_trailer(nghttp2_session *, int32_t, const nghttp2_nv *, size_t);
int nghttp2_session_set_local_window_size(nghttp2_session *, uint8_t, int32_t, int32_t);

enum { DATA = 0, HEADERS = 1, END_STREAM = 1, END_OF_DATA = 1, NO_END_STREAM = 2, NO_COPY = 6, MAX_STREAMS = 3, WINDOW = 4 };
enum { READ_SIZE = 256 * 1024, EVENTS = 64, MOST_STREAMS = 1024, WIDE = 1 << 24 };

typedef struct { int descriptor; nghttp2_session *session; } connection;

#define FIELD(name, value) { (uint8_t *)name, (uint8_t *)value, sizeof(name) - 1, sizeof(value) - 1, NO_COPY }
static const nghttp2_nv head[] = { FIELD(":status", "200"), FIELD("content-type", "application/grpc") };
static const nghttp2_nv trailers[] = { FIELD("grpc-status", "0") };

static nghttp2_session_callbacks *callbacks;
static uint8_t answer[16384], input[READ_SIZE], message[READ_SIZE];
static size_t answer_size, message_size;

static void die(const char *what) { perror(what); exit(1); }

static ssize_t give(nghttp2_session *session, int32_t stream, uint8_t *to, size_t room, uint32_t *flags, nghttp2_data_source *source,
                    void *user) {
  (void)source, (void)user;
  if (room < answer_size) die("an answer does not fit into a frame");
  memcpy(to, answer, answer_size);
  *flags |= END_OF_DATA | NO_END_STREAM;
  return nghttp2_submit_trailer(session, stream, trailers, 1) ? -902 : (ssize_t)answer_size;
}

static int on_frame(nghttp2_session *session, const nghttp2_frame_hd *frame, void *user) {
  (void)user;
  if ((frame->type != DATA && frame->type != HEADERS) || !(frame->flags & END_STREAM)) return 0;
  nghttp2_data_provider provider = { { 0 }, give };
  return nghttp2_submit_response(session, frame->stream_id, head, 2, &provider);
}

/* Every name is looked at and every byte of a message is copied, as any server must; one message at a time is enough to measure. */
static int on_header(nghttp2_session *session, const nghttp2_frame_hd *frame, const uint8_t *name, size_t name_size,
                     const uint8_t *value, size_t value_size, uint8_t flags, void *user) {
  static const char path[] = "/envoy.service.auth.v3.Authorization/Check";
  (void)session, (void)frame, (void)flags, (void)user;
  int is_path = name_size == 5 && !memcmp(name, ":path", 5);
  return is_path && (value_size != sizeof path - 1 || memcmp(value, path, value_size)) ? -902 : 0;
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data, size_t size, void *user) {
  (void)session, (void)flags, (void)stream, (void)user;
  if (message_size + size > sizeof message) message_size = 0;
  memcpy(message + message_size, data, size);
  message_size += size;
  return 0;
}

static int greet(connection *peer) {
  const nghttp2_settings_entry settings[] = { { MAX_STREAMS, MOST_STREAMS }, { WINDOW, WIDE } };
  return nghttp2_session_server_new(&peer->session, callbacks, peer) || nghttp2_submit_settings(peer->session, 0, settings, 2)
         || nghttp2_session_set_local_window_size(peer->session, 0, 0, WIDE);
}

/* Bytes that the library wants to send are gathered for one call, as the sidecar does. */
static int flush(connection *peer) {
  static uint8_t output[READ_SIZE * 4];
  size_t size = 0;
  const uint8_t *part;
  ssize_t length;
  while ((length = nghttp2_session_mem_send(peer->session, &part)) > 0) {
    if (size + (size_t)length > sizeof output) die("more output than there is room for");
    memcpy(output + size, part, (size_t)length);
    size += (size_t)length;
  }
  for (size_t sent = 0; !length && sent < size;) {
    ssize_t wrote = send(peer->descriptor, output + sent, size - sent, MSG_NOSIGNAL);
    if (wrote < 0) return -1;
    sent += (size_t)wrote;
  }
  return (int)length;
}

static int serve(connection *peer) {
  ssize_t size = recv(peer->descriptor, input, sizeof input, 0);
  return size <= 0 || nghttp2_session_mem_recv(peer->session, input, (size_t)size) != size || flush(peer);
}

static void accept_one(int listening, int poll) {
  int one = 1;
  connection *peer = calloc(1, sizeof *peer);
  if (!peer || (peer->descriptor = accept(listening, NULL, NULL)) < 0 || greet(peer)) die("accept");
  setsockopt(peer->descriptor, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
  struct epoll_event event = { .events = EPOLLIN, .data.ptr = peer };
  if (flush(peer) || epoll_ctl(poll, EPOLL_CTL_ADD, peer->descriptor, &event)) die("connection");
}

/* The message is framed as gRPC does it: a flag, the length in four bytes, the bytes. */
static void read_answer(const char *name) {
  FILE *file = fopen(name, "rb");
  size_t length = file ? fread(answer + 5, 1, sizeof answer - 5, file) : 0;
  if (!length || ferror(file) || fclose(file)) die(name);
  memcpy(answer, (uint8_t[]) { 0, 0, 0, (uint8_t)(length >> 8), (uint8_t)length }, 5);
  answer_size = length + 5;
}

int main(int count, char **words) {
  if (count != 3) return 2;
  read_answer(words[2]);
  int listening = socket(AF_INET, SOCK_STREAM, 0), poll = epoll_create1(0), one = 1;
  setsockopt(listening, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
  struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(words[1])),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
  if (bind(listening, (struct sockaddr *)&address, sizeof address) || listen(listening, 128)) die("listen");
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_frame_recv_callback(callbacks, on_frame);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  struct epoll_event event = { .events = EPOLLIN, .data.ptr = NULL }, events[EVENTS];
  if (epoll_ctl(poll, EPOLL_CTL_ADD, listening, &event)) die("epoll");
  for (;;) {
    int ready = epoll_wait(poll, events, EVENTS, -1);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    for (int index = 0; index < ready; index++) {
      connection *peer = events[index].data.ptr;
      if (!peer) {
        accept_one(listening, poll);
      } else if (serve(peer)) {
        close(peer->descriptor);
        nghttp2_session_del(peer->session);
        free(peer);
      }
    }
  }
}
