// A server that answers probes as programs in Go do: HTTPS with a certificate of its own, TLS 1.2 only, redirects, and the gRPC
// health protocol with and without services.
package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log"
	"math/big"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func certificate() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		log.Fatal(err)
	}
	template := x509.Certificate{
		SerialNumber: big.NewInt(1),
		Subject:      pkix.Name{CommonName: "nobody"},
		NotBefore:    time.Now().Add(-2 * time.Hour),
		// Expired: a probe does not mind.
		NotAfter: time.Now().Add(-time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, &key.PublicKey, key)
	if err != nil {
		log.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func serve(address string, handler http.Handler, config *tls.Config) {
	server := &http.Server{Addr: address, Handler: handler, TLSConfig: config}
	if config == nil {
		log.Fatal(server.ListenAndServe())
	}
	log.Fatal(server.ListenAndServeTLS("", ""))
}

func serveGrpc(address string, server *grpc.Server) {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		log.Fatal(err)
	}
	log.Fatal(server.Serve(listener))
}

func main() {
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("ok")) })
	mux.Handle("/same", http.RedirectHandler("/ok", http.StatusFound))
	mux.Handle("/same-bad", http.RedirectHandler("/none", http.StatusFound))
	mux.Handle("/loop", http.RedirectHandler("/loop", http.StatusFound))
	mux.Handle("/other", http.RedirectHandler("http://other.example/ok", http.StatusFound))
	certificates := []tls.Certificate{certificate()}
	go serve(":8080", mux, nil)
	go serve(":8443", mux, &tls.Config{Certificates: certificates})
	go serve(":8444", mux, &tls.Config{Certificates: certificates, MaxVersion: tls.VersionTLS12})

	status := health.NewServer()
	status.SetServingStatus("ready", healthpb.HealthCheckResponse_SERVING)
	status.SetServingStatus("sick", healthpb.HealthCheckResponse_NOT_SERVING)
	healthy := grpc.NewServer()
	healthpb.RegisterHealthServer(healthy, status)
	go serveGrpc(":9000", healthy)
	serveGrpc(":9001", grpc.NewServer())
}
