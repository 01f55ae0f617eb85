// Command decide decides by gRPC, as a service in Go does it:
//
//	decide -connect 127.0.0.1:9090,127.0.0.1:9091 order-17 accepted
//	printf 'order-17\taccepted\n' | decide -connect 127.0.0.1:9090,127.0.0.1:9091 -lines
//
// The first decides one value. The second decides each line, a key and a value with a tab between them, over one stream, and
// prints the key, its number and the id of the command of each as the answers come.
package main

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"example.com/isonomy/isonomyv1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	// How long one try may take. The replicas give up after 5 s by themselves.
	tryFor = 6 * time.Second
	// How long is tried in all.
	patience = time.Minute
	// How long is waited when the replica names no time.
	pause = 100 * time.Millisecond
)

func main() {
	connect := flag.String("connect", "127.0.0.1:9090", "replicas, as HOST:PORT with commas between them")
	lines := flag.Bool("lines", false, "decide the lines of the standard input over one stream")
	flag.Parse()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	clients, err := dial(strings.Split(*connect, ","))
	switch {
	case err != nil:
	case *lines:
		err = decideLines(ctx, clients[0], os.Stdin, os.Stdout)
	case flag.NArg() == 2:
		err = decideOne(ctx, clients, flag.Arg(0), flag.Arg(1), os.Stdout)
	default:
		err = errors.New("give a key and a value, or -lines")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "decide:", err)
		os.Exit(1)
	}
}

func dial(addresses []string) ([]isonomyv1.DecisionServiceClient, error) {
	var clients []isonomyv1.DecisionServiceClient
	for _, address := range addresses {
		connection, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return nil, err
		}
		clients = append(clients, isonomyv1.NewDecisionServiceClient(connection))
	}
	return clients, nil
}

// decideOne sends a proposal under a name until its outcome is known, to one replica after the other. The name makes it
// happen once, however often it is sent.
func decideOne(ctx context.Context, clients []isonomyv1.DecisionServiceClient, key, value string, out io.Writer) error {
	request := &isonomyv1.ProposeRequest{Proposal: &isonomyv1.Proposal{
		Key:   []byte(key),
		Value: []byte(value),
		Name:  &isonomyv1.Proposal_IdempotencyKey{IdempotencyKey: rand.Text()},
	}}
	for try := 0; ; try++ {
		answer, err := propose(ctx, clients[try%len(clients)], request)
		if err == nil {
			return print(out, key, answer.Outcome)
		}
		wait, again := mayTryAgain(err)
		if !again {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return fmt.Errorf("no outcome in %v; the last answer: %w", patience, err)
		}
	}
}

func propose(ctx context.Context, client isonomyv1.DecisionServiceClient, request *isonomyv1.ProposeRequest) (*isonomyv1.ProposeResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, tryFor)
	defer cancel()
	return client.Propose(ctx, request)
}

// mayTryAgain says whether the same request, which has a name, may be sent again, and after which time.
func mayTryAgain(err error) (time.Duration, bool) {
	refused := status.Convert(err)
	wait := pause
	for _, detail := range refused.Details() {
		if retry, ok := detail.(*errdetails.RetryInfo); ok {
			wait = retry.RetryDelay.AsDuration()
		}
	}
	switch refused.Code() {
	case codes.Unavailable, codes.ResourceExhausted, codes.DeadlineExceeded, codes.Aborted:
		return wait, true
	}
	return 0, false
}

// decideLines sends lines as fast as the replica reads them, and prints the answers as they come.
func decideLines(ctx context.Context, client isonomyv1.DecisionServiceClient, in io.Reader, out io.Writer) error {
	stream, err := client.ProposeStream(ctx)
	if err != nil {
		return err
	}
	keys := make(chan string, 1<<16)
	sent := make(chan error, 1)
	go func() { sent <- send(stream, in, keys) }()
	var seen []string
	for {
		answer, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return <-sent
		}
		if err != nil {
			return err
		}
		// A key is told before its proposal is sent, so it is there.
		for uint64(len(seen)) <= answer.Id {
			seen = append(seen, <-keys)
		}
		if refusal := answer.GetRefusal(); refusal != nil {
			return fmt.Errorf("%s: %v: %s", seen[answer.Id], refusal.Reason, refusal.Message)
		}
		if err := print(out, seen[answer.Id], answer.GetOutcome()); err != nil {
			return err
		}
	}
}

func send(stream grpc.BidiStreamingClient[isonomyv1.ProposeStreamRequest, isonomyv1.ProposeStreamResponse], in io.Reader, keys chan<- string) error {
	// Without this the replica waits for more, and its answers do not end.
	defer stream.CloseSend()
	lines := bufio.NewScanner(in)
	for id := uint64(0); lines.Scan(); id++ {
		key, value, found := strings.Cut(lines.Text(), "\t")
		if !found {
			return fmt.Errorf("line %d has no tab between a key and a value", id+1)
		}
		keys <- key
		proposal := &isonomyv1.Proposal{Key: []byte(key), Value: []byte(value)}
		if err := stream.Send(&isonomyv1.ProposeStreamRequest{Id: id, Proposal: proposal}); err != nil {
			// The reason comes with the answers.
			return nil
		}
	}
	return lines.Err()
}

func print(out io.Writer, key string, outcome *isonomyv1.Outcome) error {
	if rejected := outcome.GetRejected(); rejected != nil {
		return fmt.Errorf("%s: rejected, the key has %d decisions", key, rejected.KeySeq)
	}
	committed := outcome.GetCommitted()
	_, err := fmt.Fprintf(out, "%s\t%d\t%s\n", key, committed.KeySeq, committed.CommandId)
	return err
}
